"""Kernels of this project, and what puts them into a plain model from outside (`accelerate`).

On a CPU: `cpu_convolution` replaces convolutions in training, `cpu_rounding` does fake quantization. On a GPU:
depthwise convolutions with the BatchNorms and activations around them. `operators` holds what PyTorch sees,
`triton_depthwise` the Triton kernels, `reference` the plain PyTorch version, `block` the block that runs them, and
`choose` decides by measurement which blocks do. `rmsprop` updates weights in one pass.
"""
