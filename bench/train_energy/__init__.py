"""Trains networks here, over and over, and measures what it costs: what `boulton train-energy` does.

`plan` says which runs there will be; `images` has the pictures, `networks` the networks, `devices` what
trains, `meters` its energy and use. `training` is one run, `study` all; `bench.study` compares and reports.
"""
