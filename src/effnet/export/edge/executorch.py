"""ExecuTorch: .pte files that compute with XNNPACK."""

from effnet.export.edge.environment import Converter
from effnet.export.edge.formats import EdgeFormat

EXECUTORCH = EdgeFormat(
    Converter(
        "executorch",
        (
            "executorch==1.5.1",
            "expecttest==0.3.0",
            "flatbuffers==25.12.19",
            "hypothesis==6.170.17",
            "mpmath==1.3.0",
            "parameterized==0.9.0",
            "pytorch-tokenizers==1.5.0",
            "ruamel.yaml==0.19.1",
            "sortedcontainers==2.4.0",
            "sympy==1.14.0",
            "tabulate==0.10.0",
            "torchao==0.18.0",
        ),
        megabytes=140,
        script="to_executorch",
    ),
    suffix=".pte",
    integer_weights=True,
)
