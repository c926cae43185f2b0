"""Draw charts: standard input has a folder and Vega-Lite specifications by name, as JSON.

Each becomes an SVG and a PNG file of its name in the folder.
"""

import json
import signal
import sys
from pathlib import Path

import vl_convert

PNG_SCALE = 2
"""Pixels of the PNG file for a unit of length of the SVG file."""

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
    folder, specifications = json.load(sys.stdin)
    for name, specification in specifications.items():
        svg = vl_convert.vegalite_to_svg(specification)
        Path(folder, f"{name}.svg").write_text(svg, "utf-8")
        Path(folder, f"{name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE))
