"""Folders of images through NVIDIA DALI: its decoders, resampling and automatic augmentations.

What is random about an image is drawn in Python, from where it stands in the run (see
`effnet.data.randomness`). So an epoch's order, crops and flips are those of the ``pytorch`` backend for any number
of threads and processes and after a resume, which DALI's readers and random operators, each with a state of its
own, can't give. Decoding and everything after it run in DALI's threads.

Automatic augmentation is by DALI's operations (see `effnet.data.augmentations`). ``autoaugment`` applies to a sample
the operations that it has in the ``pytorch`` backend; DALI's shear is bilinear, and its equalize rounds differently.

Pipelines for a CUDA device have been written against the documentation and have not run on a GPU yet.
"""

from effnet.data.dali.loader import open_dali

__all__ = ["open_dali"]
