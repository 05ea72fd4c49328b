"""Doing it: export, engines, scheduling, the gRPC services, metrics and the command line."""

import os

# ONNX Runtime 1.31 writes an identity of the machine to ~/.cache, and is built to report its use over the
# network, as soon as it is imported. Nobody asked for that: whoever wants it sets this to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
