"""NVIDIA GPUs through NVML: finding them, what they can do, reading them, and the seam to what sets them."""
