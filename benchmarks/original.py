"""The original ``audioldm`` package as one more pipeline: it waits in a process of its own, since our names collide."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

WORKER = Path(__file__).with_name("original_worker.py")
TARGET = os.environ.get("AUDIOLDM_ORIGINAL", ".parity")


def found() -> bool:
    """Whether the folder that AUDIOLDM_ORIGINAL names holds the original (``make parity`` puts it into .parity)."""
    return Path(TARGET, "audioldm", "ldm.py").is_file()


class Original:
    """Ready to generate; each call is one run.   Its process sleeps between them."""

    def __init__(self, *, seconds: float, steps: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        words = vocabulary(Path(self.folder.name))
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(words), str(seconds), str(steps)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(TARGET).resolve()), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.answer()

    def answer(self) -> dict[str, float]:
        """Its next line.   Raises RuntimeError where it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the original package's process ended with {self.process.wait()}")
        return json.loads(line)

    def __call__(self) -> None:
        """One whole generation."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.answer()

    def peak_mib(self) -> float:
        """The most memory its process has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10

    def __enter__(self) -> "Original":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def vocabulary(folder: Path) -> Path:
    """A RoBERTa tokenizer of single bytes: the text is padded to the same 512 tokens whatever its words are."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
