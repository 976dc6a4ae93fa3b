"""The engines that run a trained model, one file each."""

from effnet.inference.engines.form import EngineKind
from effnet.inference.engines.table import ENGINES, fastest, is_exported, kind_of_file

__all__ = ["ENGINES", "EngineKind", "fastest", "is_exported", "kind_of_file"]
