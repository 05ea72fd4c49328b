"""Processes that speak gRPC for the daemon, which alone has the models, the queues and the GPU."""
