"""Other implementations of the same networks, imported only here."""

from torch import nn

from effnet.recipe import Recipe


def peer_model(peer: str, recipe: Recipe) -> nn.Module:
    """A fresh model of another project, of the recipe's architecture, with its own defaults.

    Args:
        peer: ``torchvision`` or ``timm``.
        recipe: resolved settings; the architecture must be one that the other project has.

    Raises:
        ImportError: the package is not installed, or has no such model.
    """
    name = recipe.model.arch.replace("-", "_")
    classes = recipe.model.num_classes or 1000
    try:
        if peer == "torchvision":
            import torchvision

            model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
        else:
            import timm

            # Of V2, timm has the TensorFlow models in all sizes.
            name = name.replace("efficientnet_v2", "tf_efficientnetv2")
            model = timm.create_model(name, num_classes=classes, drop_rate=0.2, drop_path_rate=0.2)
    except (ValueError, RuntimeError) as error:
        raise ImportError(f"{peer} has no {name}") from error
    return model
