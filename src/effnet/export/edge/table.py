"""The table of formats for phones and small devices."""

from effnet.export.edge import coreml, ncnn
from effnet.export.edge.environment import Converter
from effnet.export.edge.executorch import EXECUTORCH
from effnet.export.edge.formats import EdgeFormat
from effnet.export.edge.litert import LITERT
from effnet.recipe.choices import TargetName

EDGE_FORMATS: dict[TargetName, EdgeFormat] = {"litert": LITERT, "executorch": EXECUTORCH}
"""the formats, by the target of `effnet quantize` and the subcommand of `effnet export`"""

CONVERTERS: tuple[Converter, ...] = (
    LITERT.converter,
    EXECUTORCH.converter,
    coreml.CONVERTER,
    ncnn.CONVERTER,
)
"""all that `make converters` installs"""
