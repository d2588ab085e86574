"""What the commands import."""

import subprocess
import sys


def test_only_what_the_nets_need_is_imported_and_the_rest_still_can_be() -> None:
    code = """
import sys
from audioldm.cli.lean import UNUSED, import_nets
import_nets()
assert "diffusers" in sys.modules and "transformers" in sys.modules
assert not [name for name in UNUSED if name in sys.modules]
import scipy.optimize
"""
    subprocess.run([sys.executable, "-c", code], check=True)
