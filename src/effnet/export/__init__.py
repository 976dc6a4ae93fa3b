"""A trained model in other forms: pure weights, ONNX, engines."""
