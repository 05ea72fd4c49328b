"""Studying it: load generation, benchmarks and reports."""
