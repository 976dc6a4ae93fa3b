"""Errors of the model package, which stands alone and so has its own."""


class ModelError(ValueError):
    """A model name, an override or a weight file that can't be used. The message is one line for the user."""
