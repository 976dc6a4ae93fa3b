"""A trained model as a folder for the Hugging Face hub: weights that timm reads, a model card, the run's recipe."""
