"""What of the package a call passes through.

``python tests/trace.py`` lists the files of one prompt, ``python tests/trace.py train`` the lines of a training.
What is counted is every file, or line of a function, that runs, not what is imported.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = str(ROOT / "audioldm") + os.sep


def files_of(call: Callable[[], Any]) -> Counter[str]:
    """Calls into each file of ``audioldm/`` while ``call()`` runs, by the file's path."""
    counts: Counter[str] = Counter()

    def count(frame: Any, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(PACKAGE):
            counts[str(Path(name).relative_to(ROOT))] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counts


class Reached(BaseException):
    """The first step of a training has begun."""


def importing(frame: Any) -> bool:
    """Whether a frame runs because a module is imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def lines_of_training(words: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Distinct lines of each file from the command to ``Trainer.fit``, and to the first ``training_step``.

    Nets, data and callbacks that are built on the way count.
    """
    import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401   # tracing what only imports takes long
    import torch.utils.tensorboard  # noqa: F401

    import audioldm.cli.runs
    import audioldm.training.previews
    import audioldm.training.run_folder
    import audioldm.training.vae  # noqa: F401
    from audioldm.cli.app import run

    lines: dict[str, set[int]] = {}
    to_fit: Counter[str] = Counter()

    def inside(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            lines.setdefault(frame.f_code.co_filename.removeprefix(PACKAGE), set()).add(frame.f_lineno)
        return inside

    def enter(frame: Any, event: str, argument: Any) -> Any:
        code, ours = frame.f_code, frame.f_code.co_filename.startswith(PACKAGE)
        if code.co_name == "fit" and code.co_filename.endswith("lightning/pytorch/trainer/trainer.py"):
            to_fit.update({name: len(numbers) for name, numbers in lines.items()})
        if ours and code.co_name == "training_step":
            raise Reached
        return inside if ours and not importing(frame) else None

    sys.settrace(enter)
    try:
        run(words)
    except Reached:
        pass
    finally:
        sys.settrace(None)
    return to_fit, Counter({name: len(numbers) for name, numbers in lines.items()})


def table(counts: Counter[str], what: str) -> str:
    """The counts by name, and their sum."""
    rows = [f"{counts[name]:6d}  {name}" for name in sorted(counts)]
    return "\n".join([*rows, f"{counts.total()} {what} in {len(counts)} files"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        to_fit, to_step = lines_of_training(["train", "tiny/vae", *sys.argv[2:]])
        print(table(to_fit, "lines to the loop"))
        print(table(to_step, "lines to the first step"))
    else:
        from audioldm import AudioLDM

        pipe = AudioLDM.from_pretrained()
        print(table(files_of(lambda: pipe("a dog barking", seeds=[0], steps=2)), "calls"))
