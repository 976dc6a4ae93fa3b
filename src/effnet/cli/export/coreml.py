"""`effnet export coreml`."""

from effnet.cli.export.package import PackageExport, package_format


def _load() -> PackageExport:
    from effnet.export.edge.coreml import CONVERTER, SUFFIX, export_coreml

    return PackageExport(SUFFIX, CONVERTER, export_coreml)


COREML = package_format(
    "coreml",
    "an .mlpackage for Core ML; its operators are compared with PyTorch, Core ML itself on a Mac",
    description="Write a package for Core ML that takes an RGB image and returns logits. On a Mac, Core ML's logits "
    "must be PyTorch's. Elsewhere, those that the package's operators define must be, and Core ML itself does not run. "
    "coremltools is installed into the cache when it is first needed.",
    default="fp16",
    precision_help="weights and arithmetic; Apple's Neural Engine computes in fp16 alone",
    installs="coremltools",
    load=_load,
)
