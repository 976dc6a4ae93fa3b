"""INT8: where quantizers sit, calibration, and quantization-aware training."""
