"""Training from the page: ``audioldm train personal/lora`` in a process of its own, watched by the run's own log."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from audioldm.cli.options import Between, Group, option
from audioldm.cli.options.groups import ModelOptions
from audioldm.cli.startup import later
from audioldm.datasets.prepare.shared import is_sound, walk
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.serve.service import Service, Take

with later():
    from audioldm.training import callbacks

POLL_SECONDS = 0.5
ADAPTER = "The adapter is in the server's folder of trainings."


class TrainRequest(Group):
    """A training as the page asks for it; other kinds than LoRA are for the command line."""

    folder: str = option("", "Below the server's folder of sounds.")
    prompt: str = option("", "What the sounds are; without it the captions beside them, or their names.")
    compare: str = option("", "The prompt to hear before and after, if it is another.")
    batches: int = option(300, "How long.", Between(1, 10_000))

    @property
    def audible(self) -> str:
        return (self.compare or self.prompt).strip()

    def words(self, place: Path, model: str | None) -> list[str]:
        """What the command line says of it.   Raises AudioLDMError for what no training could use."""
        if "${" in self.prompt:
            raise AudioLDMError(f"prompt={self.prompt!r} holds ${{.", "Leave it out.")
        if not self.audible:
            what = "There is no prompt to hear before and after."
            raise AudioLDMError(what, "Say what the sounds are, or what to compare.")
        texts = {"folder": str(place), "prompt": self.prompt.strip(), "model": model}
        words = [f"data.{name}={quoted(value) if value else 'null'}" for name, value in texts.items()]
        often = f"trainer.log_every_n_steps={max(1, self.batches // 100)}"
        return [*words, f"batches={self.batches}", f"val_every={max(1, self.batches // 4)}", often]


class News(NamedTuple):
    line: str  # for people
    curve: list[tuple[float, float]]  # (batch, loss)
    takes: list[Take]  # at last a sound by the model before and after


@dataclass
class Trainer:
    """Trains on folders below ``root`` (None: nobody may), one at a time, with the model of ``options``."""

    studio: Service
    options: ModelOptions
    root: Path | None = None
    request: TrainRequest = field(default_factory=TrainRequest)
    folder: Path = Path()  # of the run
    process: "subprocess.Popen[bytes] | None" = None
    stopping: bool = False
    error: str = ""
    takes: list[Take] = field(default_factory=list)
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

    @property
    def trains(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, request: TrainRequest) -> Path:
        """Begin, or go on with, a training in the folder that is returned.   Raises AudioLDMError."""
        with self._lock:
            if self.trains:
                raise AudioLDMError("A training is going on.", "Wait for it, or stop it.")
            place = self.place(request.folder)
            words = request.words(place, self.options.model)
            # the same settings and files have the same folder, so that a request goes on where it was stopped
            stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in walk(place)]
            digest = hashlib.sha256(json.dumps([words, stats]).encode()).hexdigest()[:12]
            self.folder = (self.studio.out / "training" / digest).absolute()
            words.append(f"run_dir={quoted(str(self.folder))}")
            self.request, self.stopping, self.error, self.takes = request, False, "", []
            # its own session: Ctrl-C in the server's terminal is passed on by the server, once
            about: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": os.name == "posix"}
            command = [sys.executable, "-m", "audioldm", "train", "personal/lora"]
            self.process = subprocess.Popen([*command, *words], **about)
            return self.folder

    def stop(self) -> None:
        """End the process as a scheduler would: its state is saved, and the same request goes on from it."""
        if self.process is not None and self.trains:
            self.stopping = True
            self.process.terminate()
            self.process.wait(60)

    def watch(self) -> Iterator[News]:
        """What is new of the training until it ends; nothing where there was none."""
        process, trains = self.process, True
        while process is not None and trains:
            trains = process.poll() is None
            yield self.news()
            if trains:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                continue
            with self._lock:  # of several who watch, the first has the sounds made
                self.finish(process.returncode)
            yield self.news()

    def news(self) -> News:
        metrics = self.folder / "metrics.jsonl"
        rows = callbacks.read_metrics(metrics) if metrics.is_file() else []
        curve = [(row["batch"], row["train/loss"]) for row in rows if "train/loss" in row]
        batch, loss = curve[-1] if curve else (0, 0.0)
        lines: dict[str, object] = {
            self.error: self.error,
            f"Done: {self.request.batches} batches; before and after have one seed. {ADAPTER}": self.takes,
            f"Stopped after batch {batch:.0f}. The same request goes on from the last state.": self.stopping,
            "Making the sounds before and after.": not self.trains,
            "Reading and encoding the sounds.": not curve,
            f"Batch {batch:.0f} of {self.request.batches}, loss {loss:.3g}.": True,
        }
        return News(next(line for line, holds in lines.items() if holds), curve, self.takes)

    def finish(self, code: int) -> None:
        """Make the prompt's sound without and with what was learned, of one seed."""
        if self.stopping or self.error or self.takes:
            return
        studio, file = self.studio, self.folder / "model" / "adapter.safetensors"
        try:
            if code:
                what = f"The training ended with code {code}."
                raise AudioLDMError(what, "The server's terminal says why.")
            learned = replace(self.options, adapter=[*self.options.adapter, str(file)]).load()
            seconds = min(studio.pipe.defaults.seconds, studio.limits.seconds)
            for one in (studio, replace(studio, pipe=learned)):
                *_, last = one.generate(self.request.audible, seconds=seconds, takes=1, seed=0)
                self.takes += last if isinstance(last, list) else []
        except AudioLDMError as error:
            self.error = str(error)


def quoted(value: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(value, Quote.single).with_quotes())
