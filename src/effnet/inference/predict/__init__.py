"""Predictions for all images of a source, written to one table part by part."""
