"""Other implementations of the same networks, imported only here."""

from torch import nn

from effnet.recipe import Recipe, ResolvedRecipe

LIBRARIES = ("torchvision", "timm")


def baseline_model(library: str, recipe: Recipe | ResolvedRecipe) -> nn.Module:
    """Build a model of another library, of the recipe's architecture, with that library's defaults.

    Args:
        library: one of `LIBRARIES`.
        recipe: resolved settings; the architecture must be one that the other library has.

    Raises:
        ImportError: the package is not installed, or has no such model.
    """
    name = recipe.model.arch.replace("-", "_")
    classes = recipe.model.num_classes or 1000
    try:
        if library == "torchvision":
            import torchvision

            model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
        else:
            import timm

            # Of V2, timm has the TensorFlow models in all sizes.
            name = name.replace("efficientnet_v2", "tf_efficientnetv2")
            model = timm.create_model(name, num_classes=classes, drop_rate=0.2, drop_path_rate=0.2)
    except (ValueError, RuntimeError) as error:
        raise ImportError(f"{library} has no {name}") from error
    return model
