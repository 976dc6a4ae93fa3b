"""Sizes of a depthwise convolution."""

from dataclasses import dataclass

from effnet.models.layers import Conv2d


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


def top_left(conv: Conv2d, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of zeros that go before an image of the given size."""
    if not conv.pads_itself:
        return conv.kernel_size[0] // 2, conv.kernel_size[1] // 2
    return conv.same_padding(height)[0], conv.same_padding(width)[0]
