"""The choice of ``--engine auto``: a short measurement on this machine, kept for the next command."""
