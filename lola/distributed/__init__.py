"""Everything that imports Ray."""

import os

from lola.filesystem import home

if home() is None:  # modules of Ray's cannot be imported without one; containers give unknown users this
    os.environ["HOME"] = "/"
