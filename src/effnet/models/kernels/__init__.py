"""Depthwise convolutions for GPUs, with the BatchNorm and activation around them: Triton kernels and their twins.

`operators` holds what PyTorch sees, `triton_depthwise` the kernels, `twin` their meaning in plain PyTorch, `block`
the composition that a model's block runs with them, and `choose` decides by measurement which blocks do.
"""
