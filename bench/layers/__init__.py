"""Where a network's time and energy go, layer by layer, on an engine: `boulton layers`.

`timed` holds what was measured; `timing` (ONNX Runtime), `pytorch_timing` and `tensorrt_timing` measure it;
`origin` finds the nodes of the graph behind what ONNX Runtime executes.
"""
