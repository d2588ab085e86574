"""The fuzz is a program (``make fuzz``); its parts become plain modules for the tests of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
collect_ignore = ["__main__.py"]
