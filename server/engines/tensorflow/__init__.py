"""TensorFlow as an engine, for comparison only: the ONNX graph as one tf.function."""
