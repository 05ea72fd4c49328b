"""Measurements of the engines by themselves."""
