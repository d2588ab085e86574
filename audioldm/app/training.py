"""Training from the page: ``audioldm train personal/KIND`` in a process of its own, watched by the run's own log."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from uuid import uuid4

from audioldm.cli.options import Between, Group, option
from audioldm.cli.options.groups import ModelOptions
from audioldm.datasets.prepare.shared import is_sound, walk
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.serve.service import Service, Take

WORD = "<mine>"
"""What ``personal/textual_inversion`` calls the sounds"""
POLL_SECONDS = 0.5


class TrainRequest(Group):
    """A training as the page asks for it."""

    folder: str = option("", "Below the server's folder of sounds.")
    kind: str = option("lora", "A recipe of personal/.")
    prompt: str = option("", "What the sounds are; without it the captions beside them, or their names.")
    compare: str = option("", "The prompt to hear before and after, if it is another.")
    batches: int = option(300, "How long.", Between(1, 10_000))
    batch_size: int = option(4, "Sounds a batch.", Between(1, 64))
    seed: int = option(0, "Of the training and of both sounds.", Between(0, 2**31 - 1))

    @property
    def audible(self) -> str:
        return (self.compare or (WORD if self.kind == "textual_inversion" else self.prompt)).strip()

    def words(self, place: Path, model: str | None) -> list[str]:
        """What the command line says of it.   Raises AudioLDMError for what no training could use."""
        if self.kind not in kinds():
            raise AudioLDMError(f"kind={self.kind!r} is unknown.", f"Known: {', '.join(kinds())}.")
        if "${" in self.prompt:
            raise AudioLDMError(f"prompt={self.prompt!r} holds ${{.", "Leave it out.")
        if not self.audible:
            what = "There is no prompt to hear before and after."
            raise AudioLDMError(what, "Say what the sounds are, or what to compare.")
        texts = {"folder": str(place), "prompt": self.prompt.strip(), "model": model}
        numbers = {name: getattr(self, name) for name in ("batches", "batch_size", "seed")}
        numbers |= {"val_every": max(1, self.batches // 4)}
        numbers |= {"trainer.log_every_n_steps": max(1, self.batches // 100)}
        words = [f"data.{name}={quoted(value) if value else 'null'}" for name, value in texts.items()]
        return [*words, *(f"{name}={value}" for name, value in numbers.items())]


class News(NamedTuple):
    """How far a training is: a line for people, and (batch, loss) so far.

    At the end also the same prompt and seed by the model before and after, and a copy of the adapter, if there is one.
    """

    line: str
    curve: list[tuple[float, float]]
    takes: list[Take]
    adapter: Path | None


@dataclass
class Training:
    """A process of ``audioldm train``, and what came of it."""

    request: TrainRequest
    folder: Path
    process: "subprocess.Popen[bytes]"
    stopping: bool = False
    error: str = ""
    takes: list[Take] = field(default_factory=list)
    adapter: Path | None = None

    def news(self) -> News:
        from audioldm.training.callbacks import read_metrics

        metrics = self.folder / "metrics.jsonl"
        rows = read_metrics(metrics) if metrics.is_file() else []
        curve = [(row["batch"], row["train/loss"]) for row in rows if "train/loss" in row]
        batch, loss = curve[-1] if curve else (0, 0.0)
        lines: dict[str, object] = {
            self.error: self.error,
            f"Done: {self.request.batches} batches; before and after have one seed.": self.takes,
            f"Stopped after batch {batch:.0f}. The same request goes on from the last state.": self.stopping,
            "Making the sounds before and after.": self.process.poll() == 0,
            "Reading and encoding the sounds.": not curve,
            f"Batch {batch:.0f} of {self.request.batches}, loss {loss:.3g}.": True,
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
        sounds = filter(is_sound, walk(self.root)) if self.root is not None else ()
        return sorted({path.parent.relative_to(self.root or "").as_posix() for path in sounds})

    def place(self, name: str) -> Path:
        """The folder of a request.   Raises AudioLDMError for one that is not below the root, or not there."""
        if self.root is None:
            raise AudioLDMError("This server trains on no folder.", "Start it with --sounds FOLDER.")
        try:
            place = inside(self.root, (name or ".").strip().replace("\\", "/"))
        except AudioLDMError:
            raise AudioLDMError(f"folder={name!r} leads out.", "Choose one of the list.") from None
        if not place.is_dir() or not any(map(is_sound, walk(place))):
            raise AudioLDMError(f"folder={name!r} holds no sounds.", "Choose one of the list.")
        return place

    def start(self, request: TrainRequest) -> Training:
        """Begin, or go on with, a training.   Raises AudioLDMError while another one is going on."""
        with self._lock:
            if self.current is not None and self.current.process.poll() is None:
                raise AudioLDMError("A training is going on.", "Wait for it, or stop it.")
            place = self.place(request.folder)
            words = request.words(place, self.options.model)
            # the same settings and files have the same folder, so that a request goes on where it was stopped
            stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in walk(place)]
            digest = hashlib.sha256(json.dumps([words, stats]).encode()).hexdigest()[:12]
            folder = (self.studio.out / "training" / f"{request.kind}_{digest}").absolute()
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "audioldm", "train", f"personal/{request.kind}", *words]
            with (folder / "log.txt").open("wb") as log:
                # its own session: Ctrl-C in the server's terminal is passed on by the server, once
                process = subprocess.Popen(
                    [*command, f"run_dir={quoted(str(folder))}"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=os.name == "posix",
                    env={**os.environ, "PYTHONIOENCODING": "utf-8"},
                )  # fmt: skip
            self.current = Training(request, folder, process)
            return self.current

    def stop(self) -> None:
        """End the process as a scheduler would: its state is saved, and the same request goes on from it."""
        if self.current is not None and self.current.process.poll() is None:
            self.current.stopping = True
            self.current.process.terminate()
            self.current.process.wait(60)

    def watch(self) -> Iterator[News]:
        """What is new of the current training until it ends; nothing where there was none."""
        training, ended = self.current, False
        while training is not None and not ended:
            ended = training.process.poll() is not None
            yield training.news()
            if ended:
                with self._lock:  # of several who watch, the first has the sounds made
                    self.finish(training)
                yield training.news()
            with suppress(subprocess.TimeoutExpired):
                training.process.wait(POLL_SECONDS)

    def finish(self, training: Training) -> None:
        """Make the prompt's sound without and with what was learned, of one seed, and a copy of the adapter."""
        if training.stopping or training.error or training.takes:
            return
        request, studio = training.request, self.studio
        file, model = training.folder / "model" / "adapter.safetensors", str(training.folder / "model")
        try:
            if training.process.returncode:
                raise AudioLDMError(self.complaint(training))
            if file.is_file():
                learned = replace(self.options, adapter=[*self.options.adapter, str(file)]).load()
                copy = studio.results / uuid4().hex / f"{request.kind}.safetensors"
                copy.parent.mkdir(parents=True)
                training.adapter = Path(shutil.copy(file, copy))
            else:
                learned = self.options.load(model)
            for one in (studio, replace(studio, pipe=learned)):
                seconds = min(one.pipe.defaults.seconds, one.limits.seconds)
                *_, last = one.generate(request.audible, seconds=seconds, takes=1, seed=request.seed)
                training.takes += last if isinstance(last, list) else []
        except AudioLDMError as error:
            training.error = str(error)

    def complaint(self, training: Training) -> str:
        """The command's last line, without paths of this machine."""
        text = (training.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        lines = re.findall(r"^audioldm: ([^\r\n]+)", text.replace("\r", "\n"), re.M)
        line = str(lines[-1]) if lines else f"The training ended with code {training.process.returncode}."
        for path in (self.root, self.studio.out.absolute()):
            line = line.replace(f"{path}{os.sep}", "").replace(str(path), "the folder")
        return line


def kinds() -> list[str]:
    """The recipes of ``personal/``.   Raises AudioLDMError where training is not installed."""
    try:
        from audioldm import recipes
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"Training needs {error.name}.", 'Run: pip install "audioldm[train]"') from None
    return [name.removeprefix("personal/") for name in recipes.names() if name.startswith("personal/")]


def quoted(value: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(value, Quote.single).with_quotes())
