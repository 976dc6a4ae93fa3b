"""What all parts stand on: errors, processes, precision, memory, caches, files, the run's log."""
