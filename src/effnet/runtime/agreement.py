"""Agreement of all processes on what to do after a step, without a wait."""

from typing import Any

import torch
import torch.distributed as dist

from effnet.runtime.processes import Processes


class Agreement:
    """The greatest of all processes' wishes, one call later.

    Each call starts a reduction over Gloo, on the CPU and in the background, and returns the result of the call before
    it: the same number in every process after the same number of calls. So the processes stop, or write a checkpoint,
    after the same step, and none waits for a device. In a single process the wish itself is returned at once.

    Args:
        processes: the processes of the run, all of which must make it, and call it equally often.
    """

    def __init__(self, processes: Processes) -> None:
        self._group: Any = dist.new_group(backend="gloo") if processes.world_size > 1 else None
        self._wish = torch.zeros((), dtype=torch.int64)
        self._work: Any = None

    def __call__(self, wish: int) -> int:
        """Pass on this process's wish and return the greatest of the call before; 0 at the first call."""
        if self._group is None:
            return wish
        agreed = self.last()
        self._wish = torch.tensor(wish, dtype=torch.int64)
        self._work = dist.all_reduce(self._wish, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed

    def last(self) -> int:
        """Return the greatest of the last call's wishes, for which this waits; every process must call it then."""
        if self._work is None:
            return 0
        self._work.wait()
        self._work = None
        return int(self._wish)
