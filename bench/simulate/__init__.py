"""Rehearsing a policy on a simulated GPU, against the default and the best fixed setting in hindsight."""
