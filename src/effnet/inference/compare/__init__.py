"""Two models on the same images: where they agree, and where they differ most."""
