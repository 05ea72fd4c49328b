"""What can be measured and set: GPUs real and simulated, and CPU package energy."""
