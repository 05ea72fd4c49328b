"""What to do: pure decisions, the models they rest on, the devices they act on, and the twin they are rehearsed in."""
