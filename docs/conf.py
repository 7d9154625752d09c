"""Sphinx: pages in MyST markdown, and the reference made from the sources (docs/reference.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from reference import write_reference

write_reference(Path(__file__).parent.parent / "src" / "understudy", Path(__file__).parent / "reference")

project = "understudy"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "understudy"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
