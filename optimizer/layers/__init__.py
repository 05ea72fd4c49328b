"""What a CNN is made of, read from its ONNX graph: one `Layer` a node, with its work and its traffic.

`layer` holds the values; `graph` finds every tensor's shape and datatype; `arithmetic` says what an operator
computes; `count` puts them together. Nothing is run and no framework is needed.
"""
