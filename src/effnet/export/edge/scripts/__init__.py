"""Scripts that run in the converters' environments, each on its own: they import nothing of effnet."""
