"""TensorRT: engines built from ONNX, kept on disk, and run with CUDA graphs."""
