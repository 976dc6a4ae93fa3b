"""Checks of the source that no library offers."""
