"""The engines that run a trained model, one file each."""

from effnet.inference.engines.form import EngineKind
from effnet.inference.engines.table import ENGINES, fastest, for_weights, is_exported, kind_of_file

__all__ = ["ENGINES", "EngineKind", "fastest", "for_weights", "is_exported", "kind_of_file"]
