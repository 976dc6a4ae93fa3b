"""Folders of images through NVIDIA DALI: its decoders, resampling and automatic augmentations.

What is random about an image is drawn in Python, from where it stands in the run (see
`effnet.data.randomness`). So an epoch's order, crops and flips are those of the ``pytorch`` backend for any number
of threads and processes and after a resume, which DALI's readers and random operators, each with a state of its
own, can't give. An image costs Python some 60 us, of its 2 ms; decoding and all after it run in DALI's threads.

Automatic augmentation is DALI's. AutoAugment is the policy it calls ``reduced_image_net``, whose rows are those
of arXiv 1805.09501 and of torchvision; what a magnitude means differs from torchvision's in posterize, solarize
and color.

Pipelines for a CUDA device have been written against the documentation and have not run on a GPU yet.
"""

from effnet.data.dali.loader import open_dali

__all__ = ["open_dali"]
