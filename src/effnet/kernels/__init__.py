"""Kernels of this project's own, where the libraries are far from what the machine can do.

On a CPU: `cpu`. On a GPU depthwise convolutions with the BatchNorm and activation around them: `operators` holds what
PyTorch sees, `triton_depthwise` the Triton kernels, `twin` their meaning in plain PyTorch, `block` the composition that
a model's block runs with them, and `choose` decides by measurement which blocks do.
"""
