"""The GPU's memory, streams and graphs, behind protocols; pycuda is imported by one module only."""
