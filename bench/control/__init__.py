"""GPU control tried hard: a rehearsal under load, a campaign of kills, and every failure of NVML.

Real daemons, the real keeper and the real nvidia-ml-py, on the stand-in NVML library: the cards are
simulated, the processes, the sockets and the signals are not.
"""
