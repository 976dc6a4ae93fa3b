"""LiteRT, formerly TensorFlow Lite: .tflite files."""

from effnet.export.edge.environment import Converter
from effnet.export.edge.formats import EdgeFormat

LITERT = EdgeFormat(
    Converter(
        "litert",
        (
            "litert-torch==0.10.0",
            "absl-py==2.5.1",
            "ai-edge-litert==2.3.0",
            "ai-edge-quantizer==0.10.0",
            "backports-strenum==1.3.1",
            "flatbuffers==25.12.19",
            "immutabledict==4.2.1",
            "jax==0.10.2",
            "jaxlib==0.10.2",
            "jaxtyping==0.3.11",
            "lark==1.3.1",
            "litert-converter==0.5.0",
            "ml-dtypes==0.6.0",
            "multipledispatch==1.0.0",
            "opt-einsum==3.4.0",
            "ordered-set==4.1.0",
            "protobuf==7.36.2",
            "safetensors==0.8.0",
            "scipy==1.17.1",
            "tabulate==0.10.0",
            "termcolor==3.3.0",
            "tomli==2.5.0",
            "torchao==0.18.0",
            "tqdm==4.70.1",
            "typing-inspection==0.4.2",
            "wadler-lindig==0.1.8",
            "xdsl==0.28.0",
        ),
        megabytes=900,
        script="to_litert",
    ),
    suffix=".tflite",
    integer_weights=False,
)
