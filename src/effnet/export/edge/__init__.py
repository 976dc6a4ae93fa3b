"""Formats for phones and small devices, whose converters run in environments of their own."""
