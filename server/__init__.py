"""Doing it: export, engines, scheduling, the gRPC services, metrics and the command line."""
