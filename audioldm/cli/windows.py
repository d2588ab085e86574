"""What ``audioldm data encode`` encodes: windows of clips in order of length, each with all its captions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audioldm.cli.console import progress
from audioldm.control.maps import MAPS
from audioldm.datasets.audio_text import AudioText, varied
from audioldm.datasets.cache import Encoded
from audioldm.datasets.manifest import read
from audioldm.datasets.mixup import both
from audioldm.datasets.synthetic import SOUNDS, Synthetic
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import SPECS, AudioSpec

if TYPE_CHECKING:
    from audioldm.datasets.audio_text import Item


@dataclass(frozen=True)
class Cuts:
    """How windows are cut: lengths in seconds, draws, variations of speed, and the maps that each carries."""

    seconds: float
    buckets: tuple[float, ...] = ()
    mixup: float = 0.0
    speed: float = 0.0
    maps: tuple[str, ...] = ()
    split: str = "train"
    seed: int = 0


@dataclass(frozen=True)
class Nets:
    """What encodes windows, all on one device; ``t5`` gives token sequences, where they are kept."""

    autoencoder: Any
    clap: Any
    t5: Any
    spec: AudioSpec
    log_mel: LogMel

    @classmethod
    def load(cls, vae: str, clap: str, t5: str, spec: str, device: str) -> "Nets":
        """The nets by their references."""
        from audioldm.convert.reference import open_part
        from audioldm.nets.vae import stride_of

        autoencoder = open_part(vae, "vae").to(device)
        channels = autoencoder.config.latent_channels
        front = replace(SPECS[spec], stride=stride_of(autoencoder), latent_channels=channels)
        sequences = open_part(t5, "text_encoder", device=device, dtype=torch.float32) if t5 else None
        return cls(
            autoencoder, open_part(clap, "clap").to(device), sequences, front, LogMel(front).to(device)
        )

    def null(self) -> dict[str, Any]:
        """What no caption is, by CLAP and by T5."""
        null = {"null": self.clap.embed_text([""])[0].tolist()}
        return null if self.t5 is None else {**null, "null_tokens": self.t5.embed("").tolist()}


@dataclass(frozen=True)
class Source:
    """A data set, and of each of its rows the captions, the source's name, the bucket and the labels."""

    data: "Dataset[Item]"
    captions: list[tuple[str, ...]]
    names: list[str]
    buckets: list[int]
    labels: list[tuple[str, ...]]

    def partner(self, row: int, draw: int) -> int | None:
        """The row that is mixed into a window, if there is one."""
        return self.data.partner(row, draw) if isinstance(self.data, AudioText) else None

    def marks(self, row: int, draw: int) -> tuple[str, ...]:
        """The labels of one window, those of a row that is mixed in too."""
        partner = self.partner(row, draw)
        return self.labels[row] + (() if partner is None else self.labels[partner])

    def texts(self, row: int, draw: int) -> tuple[str, ...]:
        """The captions of one window; those of both rows, joined, if another is mixed in."""
        partner, first = self.partner(row, draw), self.captions[row]
        if partner is None:
            return first
        second = self.captions[partner]
        count = max(len(first), len(second))
        return tuple(both(first[i % len(first)], second[i % len(second)]) for i in range(count))


def sources(names: Sequence[str], spec: AudioSpec, cuts: Cuts) -> list[Source]:
    """The manifests, or the synthetic sounds, as sources."""
    out = []
    for name in names:
        if name == "synthetic":
            sounds = Synthetic(spec, cuts.seconds, 280, seed=cuts.seed)
            kinds = [sounds.kind(i) for i in range(len(sounds))]
            texts = [SOUNDS[kind][1] for kind in kinds]
            none = [0] * len(kinds)
            out.append(Source(sounds, texts, ["synthetic"] * len(kinds), none, [(kind,) for kind in kinds]))
        else:
            rows = read(name, split=cuts.split)
            lengths = cuts.buckets or None
            data = AudioText(rows, spec, cuts.seconds, seed=cuts.seed, buckets=lengths, mixup=cuts.mixup)
            texts, labels = [row.captions for row in rows], [row.labels for row in rows]
            out.append(Source(data, texts, [row.source for row in rows], data.ids, labels))
    return out


Job = tuple[int, int, int]
"""source, row, draw"""


def jobs(origins: Sequence[Source], windows: Sequence[int]) -> list[Job]:
    """Every window, those of one bucket together."""
    counts = list(windows) if len(windows) > 1 else list(windows) * len(origins)
    out = [
        (source.buckets[row], place, row, draw)
        for place, source in enumerate(origins)
        for row in range(len(source.captions))
        for draw in range(counts[place])
    ]
    out.sort(key=lambda job: job[0])  # stable: within a bucket the order stays
    return [(place, row, draw) for _, place, row, draw in out]


@dataclass(frozen=True)
class Window:
    """One window before the nets: wave (1, N) at the level that they know, captions, source, labels and maps."""

    wave: Tensor
    texts: tuple[str, ...]
    source: str
    labels: tuple[str, ...]
    maps: dict[str, Tensor]


class Windows(Dataset[Window]):
    """The windows of jobs, cut, varied and measured by the loader's processes."""

    def __init__(self, origins: Sequence[Source], todo: Sequence[Job], spec: AudioSpec, cuts: Cuts) -> None:
        self.origins, self.todo, self.spec, self.cuts = origins, todo, spec, cuts

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, index: int) -> Window:
        place, row, draw = self.todo[index]
        source = self.origins[place]
        item: Item = source.data[(row, draw)]
        wave = normalise_peak(varied(item[0], row, draw, speed=self.cuts.speed)[None])[0]
        maps = {name: MAPS[name].analyse(wave[0], self.spec) for name in self.cuts.maps}
        return Window(wave, source.texts(row, draw), source.names[row], source.marks(row, draw), maps)

    def batches(self, size: int) -> list[list[int]]:
        """Indices of batches of one bucket each."""

        def bucket(index: int) -> int:
            place, row, _ = self.todo[index]
            return self.origins[place].buckets[row]

        groups = (list(group) for _, group in groupby(range(len(self.todo)), key=bucket))
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


class Texts:
    """What an encoder makes of captions, each computed once, new ones together."""

    def __init__(self, embed: Callable[[list[str]], Iterable[Tensor]]) -> None:
        self.embed, self.known = embed, dict[str, Tensor]()

    def learn(self, texts: Sequence[str]) -> None:
        """Compute those that are new."""
        if new := [text for text in dict.fromkeys(texts) if text not in self.known]:
            self.known.update(zip(new, (vector.cpu() for vector in self.embed(new)), strict=True))


@torch.no_grad()
def encoded(windows: Windows, nets: Nets, *, batch_size: int, workers: int) -> Iterator[Encoded]:
    """Every window's posterior, embeddings, token sequences and maps, with a bar on stderr."""
    from audioldm.nets.vae import encode

    device = next(nets.autoencoder.parameters()).device
    words, tokens = Texts(nets.clap.embed_text), Texts(lambda new: [nets.t5.embed(text) for text in new])
    loader = DataLoader(
        windows, batch_sampler=windows.batches(batch_size), num_workers=workers, collate_fn=list,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    with progress(len(windows), "windows") as step:
        for items in loader:
            wave = torch.stack([item.wave for item in items]).to(device, non_blocking=True)
            mean, std = (value.cpu() for value in encode(nets.autoencoder, nets.log_mel(wave)))
            audio = nets.clap.embed_audio(wave, windows.spec.rate).cpu()
            texts = [text for item in items for text in item.texts]
            words.learn(texts)
            tokens.learn(texts if nets.t5 is not None else [])
            for place, item in enumerate(items):
                sequences = tuple(tokens.known[text] for text in item.texts) if nets.t5 is not None else ()
                vectors = torch.stack([words.known[text] for text in item.texts])
                yield Encoded(
                    mean[place],
                    std[place],
                    audio[place],
                    vectors,
                    item.source,
                    sequences,
                    item.labels,
                    item.maps,
                )
            step(len(items))
