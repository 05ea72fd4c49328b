"""What Boulton reads of a real GPU, held against nvidia-smi and against itself; sets nothing."""
