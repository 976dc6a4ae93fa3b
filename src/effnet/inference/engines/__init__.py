"""The engines that run a trained model, each a module and a row in the table."""

from effnet.inference.engines.table import ENGINES, EngineKind, fastest, kind_of_file

__all__ = ["ENGINES", "EngineKind", "fastest", "kind_of_file"]
