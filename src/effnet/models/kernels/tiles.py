"""How a kernel divides its work: the few divisions that are worth timing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """The part of a tensor that one program does.

    Attributes:
        strips: groups of neighbouring columns, side by side.
        columns: columns of a strip, which a thread holds in registers; even.
        channels: channels, along which the lanes lie.
        rows: rows that the program walks down; each start costs the rows of the window's halo.
        warps: warps of 32 lanes. A lane then holds `strips * channels / (32 * warps)` neighbouring channels.
    """

    strips: int
    columns: int
    channels: int
    rows: int
    warps: int


# Compiled for sm_90 by Triton 3.8, none of these spills: two 16-bit channels a lane are a 4-byte access, and take 80
# registers forward and 128 backward for a 3 x 3 kernel, 140 and 250 for 5 x 5. Four columns load 1.5 (3 x 3) or 2
# (5 x 5) times what is needed, from the L1 cache; two columns load 2 or 3 times, in half of the registers.
TILES = (
    Tile(strips=8, columns=4, channels=32, rows=32, warps=4),
    Tile(strips=4, columns=4, channels=64, rows=32, warps=4),
    Tile(strips=4, columns=2, channels=64, rows=32, warps=4),
    Tile(strips=2, columns=4, channels=64, rows=16, warps=2),
    Tile(strips=4, columns=2, channels=32, rows=16, warps=2),
)
DEFAULT_TILE = 0
