"""Windows of clips to latents and embeddings: what ``audioldm data encode`` and fine-tuning on a folder share.

The loader's processes decode, cut, vary and measure clips and give whole batches; mel, autoencoder and CLAP run on the
device, in bfloat16 on a GPU, which works on a batch while the one before is taken apart; ``write_latents`` has a thread
of its own.   B batch, N samples, D embedding, L tokens, E their width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audioldm.control.maps import MAPS
from audioldm.datasets.audio_text import AudioText, Item, both, varied
from audioldm.datasets.latents import Encoded
from audioldm.datasets.manifest import Row
from audioldm.datasets.synthetic import SOUNDS, Synthetic
from audioldm.nets.text_encoder import T5TextEncoder
from audioldm.nets.vae import encode
from audioldm.progress import counted
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec

AHEAD = 4  # batches that a process of the loader makes before they are asked for
GPU_BATCH = 64  # windows that a GPU encodes at once
ROUNDS = 40  # windows of each kind of synthetic sound
TextEncoder = Callable[[Sequence[str]], list[tuple[Tensor, Tensor | None]]]  # captions -> (D,), (L, E) each
Job = tuple[int, int, int]  # source, row, draw


@dataclass(frozen=True)
class Cuts:
    """How windows are cut: lengths in seconds, chance of mixing, variation of speed, and the maps that each carries."""

    seconds: float
    buckets: tuple[float, ...] = ()
    mixup: float = 0.0
    speed: float = 0.0
    maps: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """A data set, the rows that say what its clips are, and the bucket of each."""

    data: Dataset[Item]
    rows: Sequence[Row]
    buckets: Sequence[int]

    @staticmethod
    def of(rows: Sequence[Row], spec: AudioSpec, cuts: Cuts) -> "Source":
        """Clips of a manifest, decoded as they come; all of them first where any may be mixed into another."""
        seconds = cuts.buckets or cuts.seconds
        data = AudioText(rows, spec, seconds, seed=cuts.seed, cache=cuts.mixup > 0, mixup=cuts.mixup)
        return Source(data, rows, data.ids)

    @staticmethod
    def synthetic(spec: AudioSpec, cuts: Cuts) -> "Source":
        """So many ``ROUNDS`` of the synthetic sounds."""
        data = Synthetic(spec, cuts.seconds, ROUNDS * len(SOUNDS), seed=cuts.seed)
        kinds = [data.kind(i) for i in range(len(data))]
        rows = [Row("", SOUNDS[kind][1], labels=(kind,), source="synthetic") for kind in kinds]
        return Source(data, rows, [0] * len(rows))

    def about(self, row: int, draw: int) -> dict[str, Any]:
        """What belongs to a window beside its sound; captions and labels of both rows where another is mixed in."""
        first, clips = self.rows[row], self.data if isinstance(self.data, AudioText) else None
        partner = None if clips is None else clips.partner(row, draw)
        texts, labels = first.captions, first.labels
        if partner is not None:
            second, labels = self.rows[partner].captions, labels + self.rows[partner].labels
            count = max(len(texts), len(second))
            texts = tuple(both(texts[i % len(texts)], second[i % len(second)]) for i in range(count))
        facts = None if clips is None else clips.facts(row, draw)
        return {"texts": texts, "labels": labels, "source": first.source, "facts": facts}


def jobs(sources: Sequence[Source], windows: Sequence[int]) -> list[Job]:
    """Every window, those of one bucket together; ``windows`` is the count a clip, once or once a source."""
    counts = list(windows) if len(windows) > 1 else list(windows) * len(sources)
    pairs = [(place, row) for place, source in enumerate(sources) for row in range(len(source.rows))]
    out = [(place, row, draw) for place, row in pairs for draw in range(counts[place])]
    return sorted(out, key=lambda job: sources[job[0]].buckets[job[1]])


class Windows(Dataset[tuple[Tensor, list[dict[str, Any]]]]):
    """The windows of ``todo`` in batches of one bucket: waves (B, 1, N) at the level that nets know, and ``about``."""

    def __init__(
        self, sources: Sequence[Source], todo: Sequence[Job], spec: AudioSpec, cuts: Cuts, batch_size: int = 1
    ) -> None:
        self.sources, self.spec, self.cuts, self.batches = sources, spec, cuts, list[list[Job]]()
        for _, group in groupby(todo, key=lambda job: sources[job[0]].buckets[job[1]]):
            jobs = list(group)
            self.batches += [jobs[i : i + batch_size] for i in range(0, len(jobs), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, list[dict[str, Any]]]:
        waves, every = [], []
        for place, row, draw in self.batches[index]:
            source = self.sources[place]
            wave = varied(source.data[(row, draw)][0], row, draw, speed=self.cuts.speed)
            waves.append(normalise_peak(wave[None])[0])
            maps = {name: MAPS[name].analyse(waves[-1][0], self.spec) for name in self.cuts.maps}
            every.append({"maps": maps, **source.about(row, draw)})
        return torch.stack(waves), every


class Nets:
    """What encodes, on one device.   Without an audio tower a caption's vector stands for its sound's."""

    def __init__(self, vae: AutoencoderKL, clap: Any, spec: AudioSpec, texts: TextEncoder) -> None:
        self.vae, self.clap, self.spec, self.texts = vae, clap, spec, texts
        self.device = next(vae.parameters()).device
        self.log_mel = LogMel(spec).to(self.device)
        self.hears = getattr(clap, "audio_encoder", None) is not None
        self.known = dict[str, tuple[Tensor, Tensor | None]]()

    @torch.no_grad()
    def start(self, wave: Tensor, every: Sequence[dict[str, Any]]) -> tuple[list[Tensor], Any]:
        """Begin to encode waves (B, 1, N): mean, std, audio (B, D) where there is a tower, after a GPU's event."""
        texts = dict.fromkeys(text for about in every for text in about["texts"])
        if new := [text for text in texts if text not in self.known]:
            self.known.update(zip(new, self.texts(new), strict=True))
        gpu, wave = self.device.type == "cuda", wave.to(self.device, non_blocking=True)
        mel = self.log_mel(wave)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=gpu):
            parts = [*encode(self.vae, mel)]
            parts += [self.clap.embed_audio(wave, self.spec.rate)] if self.hears else []
        parts = [part.float().to("cpu", non_blocking=True) for part in parts]
        return parts, torch.cuda.current_stream().record_event() if gpu else None

    def taken_apart(self, every: list[dict[str, Any]], parts: list[Tensor], event: Any) -> Iterator[Encoded]:
        """The windows of a batch that was begun."""
        if event is not None:
            event.synchronize()
        mean, std, *audio = parts
        for i, about in enumerate(every):
            texts = about.pop("texts")
            vectors, sequences = zip(*(self.known[text] for text in texts), strict=True)
            text, tokens = torch.stack(vectors), tuple(part for part in sequences if part is not None)
            # a U-Net that reads no vector has one of length 1
            sound = audio[0][i] if audio and text.shape[1] > 1 else text[0]
            yield Encoded(mean[i], std[i], sound, text if any(texts) else sound[None], tokens=tokens, **about)


def encoded(windows: Windows, nets: Nets, *, workers: int = 0) -> Iterator[Encoded]:
    """Every window encoded; a clip with the empty caption has the sound's embedding in place of its caption's."""
    ahead, pin = AHEAD if workers else None, nets.device.type == "cuda"
    loader = DataLoader(windows, batch_size=None, num_workers=workers, prefetch_factor=ahead, pin_memory=pin)
    batches = zip(counted(windows.batches, "windows", len), loader, strict=True)
    begun: Iterator[Any] = ((every, *nets.start(wave, every)) for _, (wave, every) in batches)
    # the next is begun before one is taken apart
    for now, _ in pairwise(chain(begun, [None])):
        yield from nets.taken_apart(*now)


def text_encoder(clap: Any, t5: T5TextEncoder | None = None) -> TextEncoder:
    """CLAP's vectors, and T5's sequences where there is one."""

    def encode_texts(texts: Sequence[str]) -> list[tuple[Tensor, Tensor | None]]:
        vectors = clap.embed_text(texts).cpu()
        tokens = [None] * len(texts) if t5 is None else sequences(t5, texts)
        return list(zip(vectors, tokens, strict=True))

    return encode_texts


def sequences(t5: T5TextEncoder, texts: Sequence[str]) -> list[Tensor]:
    """T5's last states (L, E) of each text; texts of one length go together, so that nothing is padded."""
    out: dict[int, Tensor] = {}
    ids = t5.tokenizer(list(texts), truncation=True, max_length=t5.longest).input_ids
    for length in sorted(set(map(len, ids))):
        places = [place for place, row in enumerate(ids) if len(row) == length]
        rows = torch.tensor([ids[place] for place in places], device=t5.model.device)
        out |= zip(places, t5.model(input_ids=rows).last_hidden_state.float().cpu(), strict=True)
    return [out[place] for place in range(len(texts))]
