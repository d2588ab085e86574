"""A folder of sounds, encoded once by a model's own VAE and CLAP: what the model is fine-tuned on.   N samples."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from audioldm.batch import LatentBatch
from audioldm.datasets.check import NOTES, check
from audioldm.datasets.latents import Encoded, LatentDataset, begun, collate_latents, key_of, write_latents
from audioldm.datasets.manifest import Finding, Row
from audioldm.datasets.prepare.folder import folder as rows_of
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.unet import multiple_of
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.progress import counted
from audioldm.tables import filled, lines, read_text
from audioldm.training.data import DataModule
from audioldm.training.encoding import GPU_BATCH, Cuts, Nets, Source, Windows, encoded, jobs
from audioldm.training.finetune import vector_and_tokens

TEXTS = 256  # prompts that are read at once


def from_sounds(
    *, folder: str, model: str | None = None, prompt: str | None = "my sound", val_share: float = 0.0, cache: str,
    accelerator: str = "cpu", windows: int = 4, seconds: float | None = None, speed: float = 0.0, seed: int = 0,
    **settings: Any,
) -> DataModule:  # fmt: skip
    """Every sound below ``folder`` as latents of ``model``, all called ``prompt`` (None: by their captions or names).

    ``windows`` of a clip, ``seconds`` long (None: the model's own), all but the first up to ``speed`` faster or slower,
    at other places.   ``val_share`` of the clips is held out for validation.   ``cache`` is a folder for the latents,
    made on first start.   A clip without caption or name is learned from its sound alone.   Raises AudioLDMError for a
    file that cannot be trained on, by its name.
    """
    pipe, rows = AudioLDM.from_pretrained(model), sound_rows(folder, prompt)
    # whole latent frames that the U-Net can halve
    frames = pipe.spec.latent_frames(seconds or pipe.defaults.seconds, multiple_of(pipe.unet))
    cuts = Cuts(frames * pipe.spec.seconds_per_latent, speed=speed, seed=seed)
    if bare := [row.path for row in rows if not row.captions[0]]:
        if getattr(pipe.clap, "audio_encoder", None) is None:
            wrong = f"{bare[0]} has no caption, and {pipe.name} cannot hear."
            raise AudioLDMError(wrong, "Write one beside it (.txt); of AudioLDM the original .ckpt hears.")
        note = f"{len(bare)} of {len(rows)} clips have no caption; they are learned from their sound alone."
        warnings.warn(note, AudioLDMWarning, stacklevel=2)
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    encoder = pipe, cuts, Path(cache), torch.device("cuda" if gpu else "cpu")
    rest, held = split(rows, val_share)
    train = stored(rest, windows, *encoder)
    # one window of each is enough to compare by
    val = stored(held, 1, *encoder) if held else None
    data = DataModule(train, val, collate=collate_latents, seed=seed, **settings)
    data.captions = list(dict.fromkeys(row.captions[0] for row in (*held, *rest)))[:3]
    return data


def split(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Those to train on and a ``share`` that is held out, by the hash of their bytes, so that copies stay together."""
    groups = sorted({row.group for row in rows})
    if share > 0 and len(groups) < 5:
        note = f"{len(rows)} clips are too few to hold one out: nothing will warn of overfitting."
        warnings.warn(note, AudioLDMWarning, stacklevel=3)
        share = 0
    held = groups[: max(1, round(share * len(groups))) if share > 0 else 0]
    return [row for row in rows if row.group not in held], [row for row in rows if row.group in held]


class Listed(list[LatentBatch]):
    """Items that are at hand, by (place, draw number) or by their place."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index[0] if isinstance(index, tuple) else index)


def from_prompts(
    *, file: str, model: str | None = None, seconds: float | None = None, val_share: float = 0.0,
    accelerator: str = "cpu", seed: int = 0, **settings: Any,
) -> DataModule:  # fmt: skip
    """The prompts of ``file``, one a line, read by ``model`` once; no sounds: what a student of few steps needs.

    A line that comes more often is drawn more often.   Latents are zeros of ``seconds`` (None: the model's own).
    """
    pipe = AudioLDM.from_pretrained(model)
    texts = [row.strip() for _, row in filled(lines(read_text(file)), file)]
    if accelerator != "cpu" and torch.cuda.is_available():
        pipe.to("cuda", mode="fast")
    zeros = torch.zeros(pipe.spec.latent_shape(seconds or pipe.defaults.seconds, multiple_of(pipe.unet)))
    each = list(dict.fromkeys(texts))
    items = dict(zip(each, prompt_items(pipe, each, zeros), strict=True))
    order = torch.randperm(len(each), generator=torch.Generator().manual_seed(seed)).tolist()
    held = {each[i] for i in order[: round(val_share * len(each))]}
    train = Listed([items[text] for text in texts if text not in held])
    val: Any = Listed([items[text] for text in sorted(held)])
    return DataModule(train, val, collate=collate_latents, seed=seed, **settings)


@torch.no_grad()
def prompt_items(pipe: AudioLDM, texts: list[str], zeros: Tensor) -> Iterator[LatentBatch]:
    for part in counted([texts[i : i + TEXTS] for i in range(0, len(texts), TEXTS)], "prompts", len):
        condition = pipe.encode_text(part).to("cpu")
        for i in range(len(part)):
            film, tokens = vector_and_tokens(condition.rows(slice(i, i + 1)))
            yield LatentBatch(zeros, zeros, film, film, tokens=tokens)


def sound_rows(folder: str, prompt: str | None) -> list[Row]:
    """The clips of a folder, those without a caption with "".   AudioLDMError names what is broken or silent."""
    findings, rows = list[Finding](), list[Row]()
    none: tuple[str, ...] = ("?",)  # a check refuses a clip without a caption
    for row in rows_of(folder, findings=findings):
        rows.append(replace(row, split="train", captions=(prompt,) if prompt else row.captions or none))
    report = check(rows, workers=min(os.cpu_count() or 1, len(rows) // 250))
    wrong = [one for one in (*findings, *report.findings) if one.kind not in NOTES]
    if wrong:
        more = f", and {len(wrong) - 1} more" * (len(wrong) > 1)
        raise AudioLDMError(f"{folder}: {wrong[0]}{more}.", "Take such files out, or mend them.")
    return [replace(row, captions={none: ("",)}.get(row.captions, row.captions)) for row in report.rows]


def stored(
    rows: Sequence[Row], count: int, pipe: AudioLDM, cuts: Cuts, cache: Path, device: torch.device
) -> LatentDataset:
    """The latents of ``count`` windows of each row by a model, in a folder that is named by what decides them."""
    about: dict[str, Any] = {"seconds": cuts.seconds, "speed": cuts.speed, "seed": cuts.seed, "count": count}
    about["model"] = pipe.hashes or pipe.name
    about["clips"] = [[row.group, *row.captions, row.start, row.seconds] for row in rows]
    folder = cache / (key := key_of(about))[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if (skip := begun(folder, key, force=False)) is not None:
            windows = encode(rows, count, skip, pipe, cuts, device)
            write_latents(windows, folder, about={"key": key, "seconds": cuts.seconds})
    return LatentDataset(folder, seed=cuts.seed)


def encode(
    rows: Sequence[Row], count: int, skip: int, pipe: AudioLDM, cuts: Cuts, device: torch.device
) -> Iterator[Encoded]:
    """The latents after the first ``skip``, with what CLAP says of each sound and of its caption."""
    texts = lambda each: [vector_and_tokens(pipe.encode_text([text]).to("cpu")) for text in each]  # noqa: E731
    nets = Nets(pipe.vae.to(device), pipe.clap.to(device), pipe.spec, texts)
    batch_size, workers = (GPU_BATCH, os.cpu_count() or 1) if device.type == "cuda" else (1, 0)
    sources = [Source.of(rows, pipe.spec, cuts)]
    windows = Windows(sources, jobs(sources, [count])[skip:], pipe.spec, cuts, batch_size=batch_size)
    yield from encoded(windows, nets, workers=workers)
    for net in (pipe.vae, pipe.clap):
        net.to("cpu")
