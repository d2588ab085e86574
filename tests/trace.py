"""List the files of the package that a call passes through: ``python tests/trace.py`` does it for one prompt.

What is counted is every file of which a function runs, not what is imported.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def files_of(call: Callable[[], Any]) -> Counter[str]:
    """Calls into each file of ``audioldm/`` while ``call()`` runs, by the file's path."""
    counts: Counter[str] = Counter()
    package = str(ROOT / "audioldm")

    def count(frame: Any, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package):
            counts[str(Path(name).relative_to(ROOT))] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counts


if __name__ == "__main__":
    from audioldm import AudioLDM

    pipe = AudioLDM.from_pretrained()
    counts = files_of(lambda: pipe("a dog barking", seeds=[0], steps=2))
    for path in sorted(counts):
        print(f"{counts[path]:6d}  {path}")
    print(f"{len(counts)} files")
