"""Training from the page: ``audioldm train personal/KIND`` in a process of its own, watched by the run's own log."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from threading import Event, Lock, Thread
from typing import NamedTuple
from uuid import uuid4

from audioldm.cli.options.groups import ModelOptions
from audioldm.datasets.prepare.shared import is_sound, walk
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.ranges import Between
from audioldm.serve.service import Service, Take

MOST = {"batches": 10_000, "batch_size": 64, "seed": 2**31 - 1}
"""Largest numbers that the page may ask for"""
MOST_FOLDERS = 500
WORD = "<mine>"
"""What ``personal/textual_inversion`` calls the sounds"""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TrainRequest:
    """A training as the page asks for it.

    ``folder`` lies below the server's folder of sounds.   Without ``prompt`` the sounds are called by the captions
    beside them, or by their names; ``compare`` is then the prompt to hear before and after.
    """

    folder: str
    kind: str = "lora"
    prompt: str = ""
    compare: str = ""
    batches: int = 300
    batch_size: int = 4
    seed: int = 0

    @property
    def audible(self) -> str:
        return (self.compare or (WORD if self.kind == "textual_inversion" else self.prompt)).strip()

    def check(self) -> None:
        if self.kind not in kinds():
            raise AudioLDMError(f"kind={self.kind!r} is unknown.", f"Known: {', '.join(kinds())}.")
        for name, most in MOST.items():
            Between(int(name != "seed"), most).check(name, getattr(self, name))
        if "${" in self.prompt:
            raise AudioLDMError(f"prompt={self.prompt!r} holds ${{.", "Leave it out.")
        if not self.audible:
            what = "There is no prompt to hear before and after."
            raise AudioLDMError(what, "Say what the sounds are, or what to compare.")


class News(NamedTuple):
    """How far a training is: a line for people, and (batch, loss) so far.

    At the end also the same prompt and seed by the model before and after, and a copy of the adapter, if there is one.
    """

    line: str
    curve: list[tuple[float, float]]
    takes: list[Take]
    adapter: Path | None


class Training:
    """One process of ``audioldm train``, and what came of it; the page may look away and come back."""

    def __init__(self, trainer: "Trainer", request: TrainRequest) -> None:
        self.trainer, self.request = trainer, request
        self.ended, self.stopping, self.error, self.takes = Event(), False, "", list[Take]()
        self.adapter: Path | None = None
        words = trainer.words(request)
        # the same settings and files have the same folder, so that a request goes on where it was stopped
        files = ((path, path.stat()) for path in walk(trainer.place(request)))
        stats = [(str(path), about.st_size, about.st_mtime_ns) for path, about in files]
        digest = hashlib.sha256(json.dumps([words, stats]).encode()).hexdigest()[:12]
        self.folder = (trainer.studio.out / "training" / f"{request.kind}_{digest}").absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.txt"
        command = [sys.executable, "-m", "audioldm", "train", f"personal/{request.kind}", *words]
        with self.log.open("wb") as log:
            # its own session: Ctrl-C in the server's terminal is passed on by the server, once
            self.process = subprocess.Popen(
                [*command, f"run_dir={quoted(self.folder)}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=os.name == "posix",
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )  # fmt: skip
        Thread(target=self.follow, daemon=True).start()

    def follow(self) -> None:
        try:
            code = self.process.wait()
            if not self.stopping:
                if code:
                    raise AudioLDMError(self.complaint(code))
                self.compare()
        except AudioLDMError as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"The sounds before and after failed ({type(error).__name__}); see the log."
            raise
        finally:
            self.ended.set()

    def complaint(self, code: int) -> str:
        """The command's last line, without paths of this machine."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = re.findall(r"^audioldm: ([^\r\n]+)", text.replace("\r", "\n"), re.M)
        line = str(lines[-1]) if lines else f"The training ended with code {code}."
        for path in (self.trainer.root, self.trainer.studio.out.absolute()):
            line = line.replace(f"{path}{os.sep}", "").replace(str(path), "the folder")
        return line

    def compare(self) -> None:
        """Make the prompt's sound without and with what was learned, of one seed, and a copy of the adapter."""
        studio, options, takes = self.trainer.studio, self.trainer.options, list[Take]()
        file, model = self.folder / "model" / "adapter.safetensors", str(self.folder / "model")
        if file.is_file():
            learned = replace(options, adapter=[*options.adapter, str(file)]).load()
        else:
            learned = options.load(model)
        for one in (studio, replace(studio, pipe=learned)):
            seconds = min(one.pipe.defaults.seconds, one.limits.seconds)
            *_, last = one.generate(self.request.audible, seconds=seconds, takes=1, seed=self.request.seed)
            takes += last if isinstance(last, list) else []
        if file.is_file():
            copy = studio.results / uuid4().hex / f"{self.request.kind}.safetensors"
            copy.parent.mkdir(parents=True)
            self.adapter = Path(shutil.copy(file, copy))
        self.takes = takes

    def stop(self) -> None:
        """End the process as a scheduler would: its state is saved, and the same request goes on from it."""
        self.stopping = True
        self.process.terminate()

    def news(self) -> News:
        from audioldm.training.callbacks import read_metrics

        metrics = self.folder / "metrics.jsonl"
        rows = read_metrics(metrics) if metrics.is_file() else []
        curve = [(row["batch"], row["train/loss"]) for row in rows if "train/loss" in row]
        speeds = [row["speed/samples_per_s"] for row in rows if "speed/samples_per_s" in row]
        batch, loss = curve[-1] if curve else (0, 0.0)
        where = f" after batch {batch:.0f}" if batch else ""
        rate = f", {speeds[-1]:.3g} sounds/s" if speeds else ""
        lines: dict[str, object] = {
            self.error: self.error,
            f"Done: {self.request.batches} batches; before and after have one seed.": self.takes,
            f"Stopped{where}. The same request goes on from the last state.": self.stopping,
            "Making the sounds before and after.": self.process.poll() == 0,
            "Reading and encoding the sounds.": not curve,
            f"Batch {batch:.0f} of {self.request.batches}, loss {loss:.3g}{rate}.": True,
        }
        return News(next(line for line, holds in lines.items() if holds), curve, self.takes, self.adapter)


@dataclass
class Trainer:
    """Trains on folders below ``root`` (None: nobody may), one at a time, with the model of ``options``."""

    studio: Service
    options: ModelOptions
    root: Path | None = None
    current: Training | None = None
    _lock: Lock = field(default_factory=Lock)

    def folders(self) -> list[str]:
        """The folders below the root that hold sounds, by their names in it."""
        if self.root is None:
            return []
        places = (path.parent.relative_to(self.root).as_posix() for path in walk(self.root) if is_sound(path))
        return sorted(place for place, _ in islice(groupby(places), MOST_FOLDERS))

    def place(self, request: TrainRequest) -> Path:
        """The folder of a request.   Raises AudioLDMError for one that is not below the root, or not there."""
        if self.root is None:
            raise AudioLDMError("This server trains on no folder.", "Start it with --sounds FOLDER.")
        try:
            place = inside(self.root, (request.folder or ".").strip().replace("\\", "/"))
        except AudioLDMError:
            raise AudioLDMError(f"folder={request.folder!r} leads out.", "Choose one of the list.") from None
        if not place.is_dir() or not any(map(is_sound, walk(place))):
            raise AudioLDMError(f"folder={request.folder!r} holds no sounds.", "Choose one of the list.")
        return place

    def words(self, request: TrainRequest) -> list[str]:
        request.check()
        prompt, model = request.prompt.strip(), self.options.model
        return [
            f"data.folder={quoted(self.place(request))}",
            f"data.prompt={quoted(prompt) if prompt else 'null'}",
            f"data.model={quoted(model) if model else 'null'}",
            f"batches={request.batches}", f"batch_size={request.batch_size}", f"seed={request.seed}",
            f"val_every={max(1, request.batches // 4)}",
            f"trainer.log_every_n_steps={max(1, request.batches // 100)}",
        ]  # fmt: skip

    def start(self, request: TrainRequest) -> Training:
        """Begin, or go on with, a training.   Raises AudioLDMError while another one is going on."""
        with self._lock:
            if self.current is not None and not self.current.ended.is_set():
                raise AudioLDMError("A training is going on.", "Wait for it, or stop it.")
            self.current = Training(self, request)
            return self.current

    def stop(self) -> None:
        if self.current is not None and not self.current.ended.is_set():
            self.current.stop()
            self.current.ended.wait(60)

    def watch(self) -> Iterator[News]:
        """What is new of the current training until it ends; nothing where there was none."""
        training, before, ended = self.current, None, False
        while training is not None and not ended:
            ended = training.ended.wait(POLL_SECONDS)
            if (news := training.news()) != before or ended:
                yield (before := news)


def kinds() -> list[str]:
    """The recipes of ``personal/``.   Raises AudioLDMError where training is not installed."""
    try:
        from audioldm import recipes
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"Training needs {error.name}.", 'Run: pip install "audioldm[train]"') from None
    return [name.removeprefix("personal/") for name in recipes.names() if name.startswith("personal/")]


def quoted(value: str | Path) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(str(value), Quote.single).with_quotes())
