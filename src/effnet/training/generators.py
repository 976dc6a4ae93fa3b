"""PyTorch's random numbers in a training step: dropout and stochastic depth."""

import torch

from effnet.data.randomness import Stream, seed_of


class StepGenerators:
    """Seeds PyTorch's generators before each step, so that its random numbers do not depend on the steps before it.

    They depend on the seed, the process, the epoch and the batch alone: no generator's state has to be saved, and no
    two processes draw the same. Compiled code and CUDA graphs draw from the same generators: a compiled step takes its
    seeds from them when it runs, and a graph reads the generator's present seed at each replay.

    Args:
        device: where the steps run.
        seed: seed of the run.
        rank: number of this process.
    """

    def __init__(self, device: torch.device, seed: int, rank: int) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        self._seed, self._rank = seed, rank

    def seed(self, epoch: int, number: int) -> None:
        """Seed for a batch; does not wait for the device.

        Args:
            epoch: its epoch, from 0.
            number: its position in the epoch, from 1.
        """
        seed = seed_of(Stream.STEP, self._seed, epoch, number, self._rank)
        for generator in self._generators:
            generator.manual_seed(seed)
