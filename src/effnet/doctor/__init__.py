"""An examination of this installation and machine: what is there, what is broken or slow, and what to do about it.

This process imports nothing but Python's own library and `effnet.runtime`: whatever may fail or crash, such as the
import of PyTorch, happens in a process of its own (`probe`). `checks` is the registry; a check is one function.
"""
