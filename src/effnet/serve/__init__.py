"""A server that classifies photographs over HTTP."""
