"""Laboratory: benchmarks for those who develop effnet.

It runs from a checkout, as `python -m benchmarks COMMAND`, and is not installed with the package. What a user measures
is `effnet benchmark`.
"""
