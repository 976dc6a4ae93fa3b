"""Foundations of all other packages: errors, processes, precision, memory, files, HTTP, progress, the run's log."""
