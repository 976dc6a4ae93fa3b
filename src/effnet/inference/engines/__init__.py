"""The engines that run a trained model, one file each."""

from effnet.inference.engines.form import Candidate, EngineKind
from effnet.inference.engines.table import ENGINES, for_weights, is_exported, kind_of_file, readers, reading

__all__ = [
    "ENGINES",
    "Candidate",
    "EngineKind",
    "for_weights",
    "is_exported",
    "kind_of_file",
    "readers",
    "reading",
]
