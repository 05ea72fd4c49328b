"""Which device the networks run on: the CPU, a simulated GPU, or a GPU through NVML and the keeper."""
