"""Online models of latency, power and arrivals."""
