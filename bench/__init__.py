"""Studying it: load generation, benchmarks and reports."""

import server as _server  # noqa: F401 - before ONNX Runtime, which it keeps from reporting its use
