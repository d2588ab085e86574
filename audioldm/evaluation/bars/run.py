"""All bars of one model, in the order in which their sounds are needed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.bars import codec as codecs
from audioldm.evaluation.bars import hearing, likeness, pitch, sounds
from audioldm.evaluation.bars.bar import Bar
from audioldm.evaluation.bars.sounds import Crowd, Framing
from audioldm.evaluation.clips import Clips
from audioldm.evaluation.recognition import PROMPTS
from audioldm.evaluation.tagbridge import TagBridge
from audioldm.evaluation.yamnet import YamNet

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""(what, how many) to a context that gives the function to call for each"""


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:
    """No progress."""
    yield lambda: None


@dataclass
class Bars:
    """The bars as methods over sounds that are made, framed and heard once."""

    rows: Sequence[Row]
    clips: Clips
    yamnet: YamNet
    progress: Progress = silent
    seeds: int = hearing.SEEDS
    captions: int = sounds.CAPTIONS
    pairs: int = pitch.PAIRS
    device: str = "cpu"
    framing: Framing = field(init=False)

    def __post_init__(self) -> None:
        seconds = self.clips.settings.get("seconds") or self.clips.pipe.defaults.seconds
        self.framing = Framing(float(seconds))
        if self.seeds < 2:
            raise AudioLDMError(f"seeds={self.seeds} is too few.", "Use 2 or more.")

    @cached_property
    def fold(self) -> list[Row]:
        """ESC-10's test fold."""
        return sounds.test_fold(self.rows)

    @cached_property
    def open(self) -> list[Row]:
        """Held-out open sounds."""
        return sounds.held_out(self.rows, self.captions)

    @cached_property
    def real_waves(self) -> list[Tensor]:
        """The held-out sounds, ESC-10's first."""
        return [self.framing.of_row(row) for row in (*self.fold, *self.open)]

    @cached_property
    def made_waves(self) -> list[Tensor]:
        """A generated clip for each held-out one: ESC-10's prompts with seeds 0 to 7, captions with their number."""
        place: dict[str, int] = {}
        prompts, seeds = [], []
        for row in self.fold:
            place[row.labels[0]] = seed = place.get(row.labels[0], -1) + 1
            prompts.append(PROMPTS[row.labels[0]])
            seeds.append(seed)
        prompts += [row.captions[0] for row in self.open]
        seeds += range(len(self.open))
        with self.progress("generating", len(prompts)) as step:
            self.clips.on_clip = step
            waves = self.clips.ask(prompts, seeds)
        return [self.framing(wave, self.clips.pipe.spec.rate) for wave in waves]

    def hear(self, what: str, waves: Sequence[Tensor]) -> Crowd:
        """YAMNet's view of waves, with progress."""
        with self.progress(f"hearing {what}", len(waves)) as step:
            return Crowd.of(waves, self.yamnet, step)

    @cached_property
    def real(self) -> Crowd:
        """The held-out sounds, heard."""
        return self.hear("held-out sounds", self.real_waves)

    @cached_property
    def made(self) -> Crowd:
        """The generated clips, heard."""
        return self.hear("generated clips", self.made_waves)

    @cached_property
    def halves(self) -> tuple[Crowd, Crowd, list[Tensor]]:
        """Two real halves, heard, and the first one's waves."""
        first, second = (
            [self.framing.of_row(row) for row in half]
            for half in sounds.halves(
                self.rows, per_class=len(self.fold) // len(PROMPTS), opensounds=len(self.open)
            )
        )
        return self.hear("one real half", first), self.hear("the other half", second), first

    @cached_property
    def codec(self) -> codecs.Codec:
        """The model without its U-Net."""
        return codecs.Codec(self.clips.pipe, self.framing)

    def through(self, waves: Sequence[Tensor]) -> Crowd:
        """VAE and vocoder, heard."""
        back = []
        with self.progress("VAE and vocoder", len(waves)) as step:
            for wave in waves:
                back.append(self.codec.round_trip(wave))
                step()
        return self.hear("round trips", back)

    @cached_property
    def trip(self) -> Crowd:
        """The held-out sounds after VAE and vocoder, heard."""
        return self.through(self.real_waves)

    @cached_property
    def classes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Embeddings of every ESC-10 prompt's seeds, and of the class's real clips."""
        made, real = {}, {}
        for label, prompt in PROMPTS.items():
            waves = self.clips.ask([prompt] * self.seeds, range(self.seeds))
            made[label] = [self.framing(wave, self.clips.pipe.spec.rate) for wave in waves]
            rows = [row for row in sounds.of_source(self.rows, sounds.ESC10) if label in row.labels]
            real[label] = [self.framing.of_row(row) for row in rows]
        return (
            {label: self.hear(f"{label} (made)", part).embeddings for label, part in made.items()},
            {label: self.hear(f"{label} (real)", part).embeddings for label, part in real.items()},
        )

    def esc10(self) -> list[Bar]:
        """Recognition."""
        with self.progress("generating", self.seeds * len(PROMPTS)) as step:
            self.clips.on_clip = step
            rows = sounds.of_source(self.rows, sounds.ESC10)
            return [hearing.recognition(rows, self.clips, self.yamnet, seeds=self.seeds)]

    def tags(self) -> list[Bar]:
        """The tag bridge, on the open sounds' captions."""
        start = len(self.fold)
        part = slice(start, None)
        captions = [row.captions[0] for row in self.open]
        return [
            hearing.tag_bridge(self.real[part], self.made[part], captions, TagBridge(self.yamnet.class_names))
        ]

    def distance(self) -> list[Bar]:
        """Fréchet distances."""
        first, second, waves = self.halves
        other = self.through(waves)
        return list(
            likeness.distance(
                self.real, self.made, first=first, second=second, trip=self.trip, trip_other=other
            )
        )

    def diversity(self) -> list[Bar]:
        """Distances within a prompt."""
        return [likeness.diversity(*self.classes)]

    def copies(self) -> list[Bar]:
        """Nearest training clips."""
        train = [row for row in self.rows if row.split == "train"]
        search = likeness.CopySearch(train, self.framing, device=self.device)
        with self.progress("searching for copies", len(train)) as step:
            both = [*self.made_waves, *self.real_waves]
            found, nearest = search(both, step)
        half = len(self.made_waves)
        return [likeness.copies(found[:half], nearest[:half], found[half:])]

    def pitch(self) -> list[Bar]:
        """Low and high notes."""
        with self.progress("generating notes", 2 * self.pairs) as step:
            self.clips.on_clip = step
            return [pitch.follows_words(self.clips, self.framing, self.rows, count=self.pairs)]

    def vocoder(self) -> list[Bar]:
        """Vocoder and round trip."""
        rows = [*self.fold, *self.open]
        with self.progress("vocoder on real mels", len(rows)) as step:
            bars = codecs.vocoder(self.codec, [self.framing.bare(row) for row in rows], step)
        return [*bars, codecs.keeps_tag(self.real, self.trip)]

    def run(self, only: Sequence[str] = ()) -> Iterator[tuple[str, list[Bar]]]:
        """Each question of ``ORDER`` (or of ``only``) with its bars, as soon as they are known."""
        for name in only or ORDER:
            with torch.no_grad():
                yield name, getattr(self, name)()


ORDER = ("vocoder", "esc10", "tags", "distance", "diversity", "copies", "pitch")


def about(bars: Bars) -> dict[str, Any]:
    """What a reader needs to get the same numbers again."""
    pipe, test = bars.clips.pipe, [row for row in bars.open if row.split == "test"]
    return {
        "model": pipe.name,
        "sha256": pipe.hashes,
        "defaults": vars(pipe.defaults),
        "settings": bars.clips.settings,
        "dtype": str(pipe.dtype),
        "device": str(pipe.device),
        "framing": str(bars.framing),
        "embedder": {"name": bars.yamnet.name, "sha256": bars.yamnet.sha256},
        "esc10_test": len(bars.fold),
        "opensounds_test": len(test),
        "opensounds_val": len(bars.open) - len(test),
        "train_rows": sum(row.split == "train" for row in bars.rows),
        "candidates": 1,
    }
