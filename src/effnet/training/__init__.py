"""Training: the loop, its step, validation, checkpoints and metrics."""
