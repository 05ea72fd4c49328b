"""A stand-in for NVIDIA's management library: simulated cards behind the real interface."""
