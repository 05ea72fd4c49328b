"""What to do: pure decisions, their models, the devices they act on, the twin to rehearse them in."""
