"""Lower precision, written into the ONNX file: TensorRT 11 reads precision from the graph and nowhere else.

`half` and `int8` convert a float32 graph; `magnitudes` finds what would overflow, `quantiser` calibrates,
`sensitivity` finds the nodes that cost most; `pictures` are what is calibrated and judged on; `fidelity`
compares with float32; `lowering` strings them together, and `rewriting` does it to a file.
"""
