"""What ``audioldm data encode`` encodes: windows of clips in order of length, each with all its captions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from audioldm.cli.console import progress

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from audioldm.datasets.audio_text import Item
    from audioldm.datasets.cache import Encoded
    from audioldm.spec import AudioSpec


@dataclass(frozen=True)
class Source:
    """A data set, and of each of its rows the captions, the source's name and the bucket."""

    data: "Dataset[Item]"
    captions: list[tuple[str, ...]]
    names: list[str]
    buckets: list[int]
    labels: list[tuple[str, ...]]

    def marks(self, row: int, draw: int) -> tuple[str, ...]:
        """The labels of one window, those of a row that is mixed in too."""
        partner = getattr(self.data, "partner", lambda row, draw: None)(row, draw)
        return self.labels[row] + (() if partner is None else self.labels[partner])

    def texts(self, row: int, draw: int) -> tuple[str, ...]:
        """The captions of one window; those of both rows, joined, if another is mixed in."""
        from audioldm.datasets.mixup import both

        partner = getattr(self.data, "partner", lambda row, draw: None)(row, draw)
        own = self.captions[row]
        if partner is None:
            return own
        other = self.captions[partner]
        return tuple(both(own[i % len(own)], other[i % len(other)]) for i in range(max(len(own), len(other))))


def sources(
    names: Sequence[str],
    spec: "AudioSpec",
    seconds: float,
    *,
    split: str,
    seed: int,
    buckets: Sequence[float] | None = None,
    mixup: float = 0.0,
) -> list[Source]:
    """The manifests, or the made-up sounds, as sources."""
    from audioldm.datasets.audio_text import AudioText
    from audioldm.datasets.manifest import read
    from audioldm.datasets.synthetic import SOUNDS, Synthetic

    found = []
    for name in names:
        if name == "synthetic":
            made = Synthetic(spec, seconds, 280, seed=seed)
            texts = [SOUNDS[made.kind(i)][1] for i in range(len(made))]
            kinds: list[tuple[str, ...]] = [(made.kind(i),) for i in range(len(made))]
            found.append(Source(made, texts, ["synthetic"] * len(made), [0] * len(made), kinds))
        else:
            rows = read(name, split=split)
            data = AudioText(rows, spec, seconds, seed=seed, buckets=buckets, mixup=mixup)
            texts, labels = [row.captions for row in rows], [row.labels for row in rows]
            found.append(Source(data, texts, [row.source for row in rows], data.ids, labels))
    return found


def jobs(found: Sequence[Source], windows: Sequence[int]) -> list[tuple[int, int, int]]:
    """(source, row, draw) of every window, those of one bucket together."""
    counts = list(windows) if len(windows) > 1 else list(windows) * len(found)
    out = [
        (source.buckets[row], place, row, draw)
        for place, source in enumerate(found)
        for row in range(len(source.captions))
        for draw in range(counts[place])
    ]
    out.sort(key=lambda job: job[0])  # stable: within a bucket the order stays
    return [(place, row, draw) for _, place, row, draw in out]


def encoded(
    found: Sequence[Source],
    todo: Sequence[tuple[int, int, int]],
    autoencoder: Any,
    embedder: Any,
    spec: "AudioSpec",
    *,
    sequences: Any = None,
    speed: float = 0.0,
    batch_size: int = 1,
    maps: Sequence[str] = (),
) -> Iterator["Encoded"]:
    """Every window's posterior, embeddings, token sequences and ``maps``, with a progress bar on stderr."""
    import torch

    from audioldm.control.maps import MAPS
    from audioldm.datasets.audio_text import varied
    from audioldm.datasets.cache import Encoded
    from audioldm.nets.vae import encode
    from audioldm.signal.level import normalise_peak
    from audioldm.signal.mel import LogMel

    device = next(autoencoder.parameters()).device
    log_mel, words, tokens = LogMel(spec).to(device), dict[str, torch.Tensor](), dict[str, torch.Tensor]()

    def vector(text: str) -> "Tensor":
        if text not in words:
            words[text] = embedder.embed_text([text])[0].cpu()
        return words[text]

    def sequence(text: str) -> "Tensor":
        if text not in tokens:
            tokens[text] = sequences.embed(text).cpu()
        return tokens[text]

    with torch.no_grad(), progress(len(todo), "windows") as advance:
        for _, alike in groupby(todo, key=lambda job: found[job[0]].buckets[job[1]]):
            same = list(alike)
            for start in range(0, len(same), batch_size):
                part = same[start : start + batch_size]
                waves = [
                    varied(found[i].data[(row, draw)][0], row, draw, speed=speed) for i, row, draw in part
                ]  # type: ignore[index]
                wave = normalise_peak(torch.stack(waves).to(device))
                mean, std = (value.cpu() for value in encode(autoencoder, log_mel(wave)))
                audio = embedder.embed_audio(wave, spec.rate).cpu()
                for place, (i, row, draw) in enumerate(part):
                    texts = found[i].texts(row, draw)
                    yield Encoded(
                        mean[place],
                        std[place],
                        audio[place],
                        torch.stack([vector(text) for text in texts]),
                        found[i].names[row],
                        tuple(sequence(text) for text in texts) if sequences is not None else (),
                        found[i].marks(row, draw),
                        {name: MAPS[name].analyse(wave[place, 0].cpu(), spec) for name in maps},
                    )
                advance(len(part))
