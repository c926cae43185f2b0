"""The first word of a program. Every program imports this before anything else, since that takes seconds."""

import sys
from pathlib import Path

from lola.core.waiting import begin_loading

_program = Path(sys.argv[0])
if _program.resolve().parent == Path(__file__).resolve().parent and not {"-h", "--help"} & set(sys.argv):
    begin_loading(_program.name)
