"""The tournament: every policy on every GPU, network, traffic and SLO, simulated, judged by revenue."""
