"""A run from Python: its recipe composed, its training, and uses of the result."""
