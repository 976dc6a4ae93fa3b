"""Divisions of a kernel's work: the few that are worth timing."""

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


# Compiled for sm_90 by Triton 3.8 none of these spills registers; 3.6 spills ten of the first's, 5 x 5, backward.
# A lane's two 16-bit channels are one access of 4 bytes. Four columns of a 5 x 5 kernel take 140 registers forward and
# 250 backward, of a 3 x 3 kernel 72 and 128; two columns 128, 220, 64 and 118, but they load their inputs 3 (2) times
# from the L1 cache, not 2 (1.5) times. The last has the small programs that small images and batches need. Each costs
# seconds to compile for each shape, so there are few.
TILES = (
    Tile(strips=8, columns=4, channels=32, rows=32, warps=4),
    Tile(strips=4, columns=2, channels=64, rows=32, warps=4),
    Tile(strips=4, columns=2, channels=32, rows=16, warps=2),
)
DEFAULT_TILE = 0
