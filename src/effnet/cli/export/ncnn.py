"""`effnet export ncnn`."""

from effnet.cli.export.package import PackageExport, package_format


def _load() -> PackageExport:
    from effnet.export.edge.ncnn import CONVERTER, SUFFIX, export_ncnn

    return PackageExport(SUFFIX, CONVERTER, export_ncnn)


NCNN = package_format(
    "ncnn",
    "a folder for ncnn, which runs on phones and small boards",
    description="Write a network for ncnn that takes an RGB image and returns logits; ncnn's logits must be PyTorch's. "
    "ncnn and its converter pnnx are installed into the cache when they are first needed.",
    default="fp32",
    precision_help="the weights; fp16 halves the size",
    installs="ncnn",
    load=_load,
)
