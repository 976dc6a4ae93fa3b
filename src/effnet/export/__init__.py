"""A trained model in other forms: weights alone, ONNX, OpenVINO, TensorRT."""
