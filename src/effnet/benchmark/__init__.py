"""Benchmarks: ratios to other implementations, measured in one run, and the machine they were measured on."""
