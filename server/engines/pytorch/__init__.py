"""PyTorch as an engine: the ONNX graph as a torch.fx module, run eagerly or compiled."""
