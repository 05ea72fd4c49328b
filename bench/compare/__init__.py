"""Engines, precisions and batch sizes measured side by side: time, energy, memory and start-up."""
