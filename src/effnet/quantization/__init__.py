"""INT8: placement of quantizers, calibration, and quantization-aware training."""
