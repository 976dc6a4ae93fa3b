"""Inference with trained models: engines, evaluation and classification."""
