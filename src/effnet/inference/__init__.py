"""Trained models in use: evaluation and classification."""
