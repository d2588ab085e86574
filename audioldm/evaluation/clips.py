"""The sounds that are compared and what embedders make of them.   n clips, P patches, D width, K classes, N samples."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from audioldm.datasets.decode import FOREIGN, SUFFIXES, opened, read_mono, resample
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embedder, Embeddings
from audioldm.paths import sha256, staged
from audioldm.progress import counted
from audioldm.signal.level import normalise_peak
from audioldm.tables import read_object, read_table

CAPTION_FILE = "captions.csv"
CAPTIONS = ("first", "all")  # of a clip that has several
GAINS = {"peak": "mean removed, peak 0.5", "none": "own gain"}
RESAMPLER = "torchaudio sinc_interp_kaiser, width 64"


@dataclass(frozen=True)
class Clip:
    """``id`` pairs it with a clip of the other set; ``start`` and ``seconds`` choose a part of the file."""

    id: str
    path: Path
    caption: str = ""
    start: float = 0.0
    seconds: float | None = None
    group: str = ""


def from_folder(folder: Path) -> list[Clip]:
    """The sound files of a folder by name; captions from ``captions.csv`` (id, caption) or each clip's JSON sidecar."""
    if not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Name a folder of clips, or a manifest.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES + FOREIGN)
    if not paths:
        raise AudioLDMError(f"{folder} holds no sound files (.wav, .flac, ...).", "Name the clips' folder.")
    captions, clips = read_captions(folder / CAPTION_FILE), []
    for path in paths:
        caption, sidecar = captions.get(path.stem), path.with_suffix(".json")
        if not caption and sidecar.is_file():  # that ``audioldm generate`` wrote
            caption = read_object(sidecar, "Remove it, or make the clip again.").get("prompt")
        clips.append(Clip(path.stem, path, caption if isinstance(caption, str) else ""))
    return unique(clips, str(folder))


def read_captions(path: Path) -> dict[str, str]:
    """id -> caption of a table with these columns, if it is there; AudioLDMError for a row that is not read whole."""
    if not path.is_file():
        return {}
    table = read_table(path, need=("id", "caption"), text=("caption",))
    if table.omitted:
        raise AudioLDMError(f"{table.omitted[0]}.", "Correct this row: its caption would be lost.")
    cells = (row.cells for row in table.records)
    return {str(row["id"]): str(row.get("caption", "")) for row in cells if "id" in row}


def from_rows(rows: Sequence[Row], *, captions: str = "first") -> list[Clip]:
    """Manifest rows as clips.   ``captions``: the first of a row, or all, one clip each."""
    clips = []
    for row in rows:
        name = Path(row.path).stem + (f"@{row.start:g}" if row.start else "")
        texts = (row.captions or ("",))[: 1 if captions == "first" else None]
        for i, text in enumerate(texts):
            key = name if len(texts) == 1 else f"{name}#{i}"
            clips.append(Clip(key, Path(row.path), text, row.start, row.seconds, row.group or row.path))
    return unique(clips, "the manifest")


def shuffled(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """The rows in an order that depends on their contents' hashes and ``seed`` only, not on the manifest's order."""
    ordered = sorted(rows, key=lambda row: (row.sha256, row.path, row.start))
    order = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(seed))
    return [ordered[i] for i in order.tolist()]


def unique(clips: list[Clip], where: str) -> list[Clip]:
    if twice := [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]:
        what = f"{where} has {len(twice)} ids more than once, {twice[0]!r} first."
        raise AudioLDMError(what, "Give every clip its own name.")
    return clips


def check_files(clips: Sequence[Clip], what: str) -> int:
    """Two clips or more, every file there, all of one sample rate, which is returned (Hz)."""
    if len(clips) < 2:
        raise AudioLDMError(f"{len(clips)} {what} clips are too few.", "A set is compared from 2 clips on.")
    if missing := [clip.path for clip in clips if not clip.path.is_file()]:
        why = f"{len(missing)} of {len(clips)} {what} files are missing, {missing[0]} first."
        hint = "A smaller set would give another number: get them, or make a manifest without them."
        raise AudioLDMError(why, hint)
    rates = Counter(length_of(clip)[0] for clip in clips)
    if len(rates) > 1:
        listed = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common())
        hint = "Resample them alike first: a mixed band width is measured as quality."
        raise AudioLDMError(f"The {what} files have {len(rates)} sample rates: {listed}.", hint)
    return int(next(iter(rates)))


def length_of(clip: Clip) -> tuple[int, float]:
    """Rate in Hz and seconds of a clip, whose file is decoded where its header does not say."""
    with opened(clip.path) as file:
        rest = (sum(map(len, file.blocks())) if file.frames is None else file.frames) / file.rate - clip.start
        return file.rate, rest if clip.seconds is None else min(rest, clip.seconds)


def common_length(generated: Sequence[Clip], real: Sequence[Clip]) -> float:
    """The length that both sets get where none is asked for: the generated clips' own, if the real ones are like it."""
    ours, theirs = (max(length_of(clip)[1] for clip in clips) for clips in (generated, real))
    if abs(ours - theirs) > 0.1 * max(ours, theirs):
        what = f"Generated clips last up to {ours:.3g} s, references up to {theirs:.3g} s."
        raise AudioLDMError(what, "Give --crop SECONDS: both are cut, or filled with zeros, to that length.")
    return ours


def paired_runs(runs: Sequence[Sequence[Clip]], real: Sequence[Clip]) -> tuple[list[list[Clip]], list[Clip]]:
    """Sets and references by id, captioned as the references; AudioLDMError for ids that only one of two has."""
    theirs, *ours = ({clip.id: clip for clip in sorted(each, key=lambda c: c.id)} for each in (real, *runs))
    for run in ours:
        if run.keys() != theirs.keys():
            lone, lacking = sorted(run.keys() - theirs.keys()), sorted(theirs.keys() - run.keys())
            counts = f"{len(lone)} generated clips have no reference and {len(lacking)} references no clip"
            hint = "Give both the same names, or --unpaired for the metrics that need no pairs."
            raise AudioLDMError(f"{counts} ({', '.join([*lone, *lacking][:3])}, ...).", hint)
    paired = [
        [replace(run[n], caption=c.caption or run[n].caption) for n, c in theirs.items()] for run in ours
    ]
    return paired, list(theirs.values())


@dataclass(frozen=True)
class Frame:
    """What every clip of both sets gets: one length (None: its own) and one gain."""

    seconds: float | None
    gain: str = "peak"

    def __call__(self, wave: Tensor, rate: int) -> Tensor:
        """A wave (N,) cut or filled with zeros, with the gain."""
        if self.seconds is not None:
            samples = round(self.seconds * rate)
            wave = torch.nn.functional.pad(wave, (0, max(0, samples - len(wave))))[:samples]
        return normalise_peak(wave) if self.gain == "peak" else wave

    def __str__(self) -> str:
        length = "own length" if self.seconds is None else f"{self.seconds:g} s, zeros at the end"
        return f"{length}; {GAINS[self.gain]}"


@dataclass(frozen=True)
class ClipSet:
    """A whole set in the space of one embedder."""

    clips: list[Clip]
    facts: list[dict[str, Any]]
    """what the samples alone say: silent below -60 dB, clipped with 1 of 1000 at full scale; the file and its part"""
    rows: list[Tensor]  # (P, D) a clip, float64
    logits: Tensor | None  # mean over patches (n, K)
    tags: Tensor | None  # largest probability over patches (n, K)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def pooled(self) -> Tensor:
        """Mean embedding of each clip (n, D)."""
        return torch.stack([part.mean(dim=0) for part in self.rows])

    def subset(self, index: Sequence[int]) -> "ClipSet":
        at = list(index)
        clips, facts = [self.clips[i] for i in at], [self.facts[i] for i in at]
        logits, tags = (None if part is None else part[at] for part in (self.logits, self.tags))
        return ClipSet(clips, facts, [self.rows[i] for i in at], logits, tags)

    def census(self, frame: Frame) -> dict[str, int]:
        """Silent, clipped and double clips, and those that the frame fills up or cuts, counted."""
        length = frame.seconds or max(fact["seconds"] for fact in self.facts)
        return {
            "n": len(self), "silent": sum(fact["silent"] for fact in self.facts),
            "clipped": sum(fact["clipped"] for fact in self.facts),
            "duplicates": len(self) - len({fact["sha256"] for fact in self.facts}),
            "shorter": sum(fact["seconds"] < length - 0.01 for fact in self.facts),
            "cut": sum(fact["seconds"] > 1.1 * length for fact in self.facts),
        }  # fmt: skip


@dataclass
class Cache:
    """Embeddings in ``folder`` (None keeps nothing), a file for each clip and net; a broken one is remade."""

    folder: Path | None
    hits: int = 0
    misses: int = 0

    def __call__(self, identity: Sequence[str], make: Callable[[], Embeddings]) -> Embeddings:
        """Those under the hash of ``identity``, or new ones; it holds all that decides them: sound, framing, net."""
        if self.folder is None:
            return make()
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        path = self.folder / key[:2] / f"{key}.safetensors"
        with suppress(OSError, SafetensorError, TypeError):
            embeddings = Embeddings(**load_file(path))
            self.hits += 1
            return embeddings
        self.misses += 1
        embeddings = make()
        with staged(path) as stage:
            save_file({name: part for name, part in embeddings._asdict().items() if part is not None}, stage)
        return embeddings


def embed_clips(clips: Sequence[Clip], embedder: Embedder, frame: Frame, *, cache: Cache) -> ClipSet:
    """Every clip once through the embedder, or from the cache; only embeddings stay in memory."""
    facts, rows, logits, tags = [], [], [], []
    for clip in counted(clips, "clips"):
        wave, rate = read_mono(clip.path, start=clip.start, seconds=clip.seconds)
        if not len(wave):
            raise AudioLDMError(f"{clip.path} has no samples.", "Remove or remake it.", code=1)
        level = 10 * float(wave.double().square().mean().clamp_min(1e-20).log10())
        fact: dict[str, Any] = {
            "seconds": len(wave) / rate, "peak": round(float(wave.abs().max()), 5), "rms_dbfs": round(level, 2),
            "silent": level < -60, "clipped": float((wave.abs() >= 0.999).float().mean()) > 1e-3,
            "sha256": f"{sha256(clip.path)}/{clip.start:g}/{clip.seconds}",
        }  # fmt: skip

        def embed(wave: Tensor = wave, rate: int = rate) -> Embeddings:
            rows, logits = embedder.embed(resample(frame(wave, rate), rate, embedder.rate))
            return Embeddings(rows.float(), None if logits is None else logits.float())

        identity = (fact["sha256"], f"{frame}; {RESAMPLER}", embedder.name, embedder.sha256, embedder.front)
        embeddings = cache(identity, embed)
        facts.append(fact)
        patches = embeddings.rows.double()
        rows.append(patches if embedder.by_patch else patches.mean(dim=0, keepdim=True))
        if embeddings.logits is not None:
            logits.append(embeddings.logits.double().mean(dim=0))
            tags.append(embeddings.scores.amax(dim=0))
    tables = (torch.stack(part) if part else None for part in (logits, tags))
    return ClipSet(list(clips), facts, rows, *tables)
