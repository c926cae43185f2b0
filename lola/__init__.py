"""LOLA: latent-space physics emulation on Ray."""

__version__ = "0.1.0"
