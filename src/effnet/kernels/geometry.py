"""Sizes of a depthwise convolution."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """A square kernel over a zero-padded image, which keeps ceil(size / stride) pixels.

    Attributes:
        kernel: side of the kernel.
        stride: step in both directions, 1 or 2.
        top, left: zeros above and before; with PyTorch's symmetric padding (kernel - 1) // 2, with TensorFlow's "SAME"
            what the size leaves.
        height, width: of the input.
    """

    kernel: int
    stride: int
    top: int
    left: int
    height: int
    width: int

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return -(-self.width // self.stride)

    @property
    def bottom(self) -> int:
        """Zeros below that the last output row sees."""
        return (self.out_height - 1) * self.stride + self.kernel - self.height - self.top

    @property
    def right(self) -> int:
        """Zeros after the last column that the last output column sees."""
        return (self.out_width - 1) * self.stride + self.kernel - self.width - self.left
