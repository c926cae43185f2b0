"""LOLA: latent-space physics emulation on Ray."""

import os

__version__ = "0.1.0"

if os.path.expanduser("~") == "~":  # a user without a home, with which modules of Ray and MLflow do not load
    os.environ["HOME"] = "/"  # as containers give it to users whom they do not know
