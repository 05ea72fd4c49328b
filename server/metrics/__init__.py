"""Prometheus metrics, read from snapshots when scraped."""
