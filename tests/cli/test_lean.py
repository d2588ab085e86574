"""What the commands import."""

import os
import subprocess
import sys

CODE = """
import sys
from audioldm.cli.startup import UNUSED, import_nets
import_nets()
assert "diffusers" in sys.modules and "transformers" in sys.modules
print([name for name in UNUSED if name in sys.modules])
import scipy.optimize
"""


def imported(**environment: str) -> str:
    """The packages of ``UNUSED`` that a command imports."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout


def test_packages_are_hidden_only_where_it_is_asked_for_and_the_rest_still_can_be_imported() -> None:
    assert imported(AUDIOLDM_LEAN="1") == "[]\n"
    assert "scipy" in imported(AUDIOLDM_LEAN="")
