"""A folder of sounds, encoded once by a model's own VAE and CLAP: what the model is fine-tuned on.   N samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset

from audioldm.batch import LatentBatch
from audioldm.datasets.audio_text import AudioText, varied
from audioldm.datasets.cache import Encoded, begun, key_of, write_latents
from audioldm.datasets.check import NOTES, check
from audioldm.datasets.latents import LatentDataset, collate_latents
from audioldm.datasets.manifest import Finding, Row
from audioldm.datasets.prepare.folder import folder as rows_of
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import multiple_of
from audioldm.nets.vae import encode
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.training.data import DataModule
from audioldm.training.finetune import real_tokens


@dataclass(frozen=True)
class Windows:
    """How clips are cut: ``count`` windows of ``seconds`` each (None: the model's own length).

    A long clip is cut at other places, a short one put earlier or later; all windows but the first are up to ``speed``
    faster or slower.   Raises AudioLDMError out of range.
    """

    count: int = 4
    seconds: float | None = None
    speed: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise AudioLDMError(f"windows={self.count} is not a number of windows.", "Use 1 or more.")
        if not 0 <= self.speed < 1:
            raise AudioLDMError(
                f"speed={self.speed} is not a share.", "Use 0 or more, below 1; 0.06 is a semitone."
            )


class InMemory(Dataset[LatentBatch]):
    """Encoded windows; an item may be asked for with a draw number, which changes nothing."""

    def __init__(self, windows: Iterator[Encoded]) -> None:
        self.items = [
            LatentBatch(w.mean, w.std, w.text[0], w.audio, w.tokens[0] if w.tokens else None) for w in windows
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | tuple[int, int]) -> LatentBatch:
        return self.items[index[0] if isinstance(index, tuple) else index]


def from_sounds(
    *,
    folder: str,
    model: str | None = None,
    prompt: str | None = "my sound",
    seconds: float | None = None,
    windows: int = 4,
    speed: float = 0.0,
    val_share: float = 0.0,
    cache: str | None = None,
    accelerator: str = "cpu",
    batch_size: int = 8,
    seed: int = 0,
    workers: int = 0,
) -> DataModule:
    """Every sound below ``folder`` as latents of ``model``, all called ``prompt`` (None: by their captions or names).

    ``val_share`` of the clips is held out for validation, whole clips.   ``cache`` is a folder for the latents, made on
    first start, gone on with where it was cut off; None holds them in memory.   A clip without caption or name is
    learned from its sound alone.   Raises AudioLDMError for a file that cannot be trained on, by its name.
    """
    pipe, cut = AudioLDM.from_pretrained(model), Windows(windows, seconds, speed, seed)
    rows = sound_rows(folder, prompt)
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    encoder = Encoder(pipe, cut, torch.device("cuda" if gpu else "cpu"))
    held = held_out(rows, val_share)
    parts = {
        "train": (cut, [row for row in rows if row.path not in held]),
        # one window of each is enough to compare by
        "val": (replace(cut, count=1), [row for row in rows if row.path in held]),
    }
    sets = {
        name: stored(replace(encoder, cut=how), part, None if cache is None else Path(cache))
        for name, (how, part) in parts.items()
        if part
    }
    return DataModule(
        sets["train"],
        sets.get("val"),
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        collate=collate_latents,
    )


def sound_rows(folder: str, prompt: str | None) -> list[Row]:
    """The clips of a folder, all to learn from; AudioLDMError names what is broken or silent.

    A clip without any caption has the empty one.
    """
    findings: list[Finding] = []
    rows = rows_of(folder, findings=findings)
    named = [
        replace(row, split="train", captions=(prompt,) if prompt else row.captions or ("?",)) for row in rows
    ]
    report = check(named)
    wrong = [one for one in (*findings, *report.findings) if one.kind not in NOTES]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise AudioLDMError(f"{folder}: {wrong[0]}{more}.", "Take such files out, or mend them.")
    return [replace(row, captions=("",)) if row.captions == ("?",) else row for row in report.rows]


def held_out(rows: Sequence[Row], share: float) -> set[str]:
    """Paths of the clips to validate on, by the hash of their bytes, so that copies stay together; at least one clip.

    None of fewer than five clips: what is left would be too little.
    """
    groups = sorted({row.group for row in rows})
    if share <= 0 or len(groups) < 5:
        return set()
    validation = set(groups[: max(1, round(share * len(groups)))])
    return {row.path for row in rows if row.group in validation}


@dataclass(frozen=True)
class Encoder:
    """A model's VAE, CLAP and token encoder, on ``device`` while they encode."""

    pipe: AudioLDM
    cut: Windows
    device: torch.device

    @property
    def seconds(self) -> float:
        """The length of a window: whole latent frames that the U-Net can halve."""
        length = self.cut.seconds or self.pipe.defaults.seconds
        frames = self.pipe.spec.latent_frames(length, multiple_of(self.pipe.unet))
        return frames * self.pipe.spec.seconds_per_latent

    def key(self, rows: Sequence[Row]) -> str:
        """What decides the latents, as a hash."""
        return key_of(
            {
                **vars(self.cut),
                "seconds": self.seconds,
                "model": self.pipe.hashes or self.pipe.name,
                "clips": [[row.group, *row.captions, row.start, row.seconds] for row in rows],
            }
        )

    @torch.no_grad()
    def encode(self, rows: Sequence[Row], *, skip: int = 0) -> Iterator[Encoded]:
        """``cut.count`` latents of each clip after the first ``skip``, with what CLAP says of it and of its caption.

        A model that cannot hear gives the caption's embedding in place of the sound's, and a clip without a caption
        the sound's in place of its caption's.
        """
        pipe, spec = self.pipe, self.pipe.spec
        vae, clap = pipe.vae.to(self.device), pipe.clap.to(self.device)
        log_mel: Callable[[Tensor], Tensor] = LogMel(spec).to(self.device)
        clips = AudioText(rows, spec, self.seconds, seed=self.cut.seed, captions="first")
        hears = getattr(clap, "audio_encoder", None) is not None
        for place in range(skip, len(rows) * self.cut.count):
            row, draw = divmod(place, self.cut.count)
            text, tokens = self.caption(rows[row].captions[0], rows[row].path, hears)
            wave = varied(clips[(row, draw)][0], row, draw, speed=self.cut.speed)
            wave = normalise_peak(wave[None].to(self.device))
            mean, std = encode(vae, log_mel(wave))
            audio = clap.embed_audio(wave, spec.rate)[0].cpu() if hears and len(text) > 1 else text
            text = text if rows[row].captions[0] else audio
            yield Encoded(mean[0].cpu(), std[0].cpu(), audio, text[None], rows[row].source, tokens)
        for net in (pipe.vae, pipe.clap):
            net.to("cpu")

    def caption(self, caption: str, path: str, hears: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """CLAP's vector (D,) of a caption, or zeros (1,) for a U-Net that does not read it; its tokens (L, E)."""
        if not caption and not hears:
            raise AudioLDMError(
                f"{path} has no caption, and {self.pipe.name} cannot hear.", "Write one beside it (.txt)."
            )
        condition = self.pipe.encode_text([caption])
        film = torch.zeros(1) if condition.film is None else condition.film[0].cpu()
        return film, () if condition.tokens is None else (real_tokens(condition).cpu(),)


def stored(encoder: Encoder, rows: Sequence[Row], cache: Path | None) -> Dataset[LatentBatch]:
    """The latents of ``rows``: in memory, or in a folder of ``cache`` that is named by what decides them."""
    if cache is None:
        return InMemory(encoder.encode(rows))
    key = encoder.key(rows)
    folder = cache / key[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        skip = begun(folder, key, force=False)
        if skip is not None:
            about = {"key": key, "seconds": encoder.seconds}
            write_latents(encoder.encode(rows, skip=skip), folder, about=about)
    return LatentDataset(folder, seed=encoder.cut.seed)
