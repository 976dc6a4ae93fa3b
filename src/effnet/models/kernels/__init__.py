"""Kernels of this project's own, where the libraries are far from what the machine can do."""
