"""Lockstep: one model in PyTorch and in JAX, proven equal, then compared."""

__version__ = "0.1.0"
