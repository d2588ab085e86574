"""How good edits are, on real clips that no training saw: ESC-10's fold 4.   waves (N,) at the model's rate.

Every measure has the truth, and what one gets without a model, beside the model's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.datasets.decode import decode, resample
from audioldm.datasets.manifest import Row
from audioldm.evaluation.recognition import PROMPTS, TEST_FOLD, Listener
from audioldm.evaluation.yamnet import RATE, YamNet
from audioldm.metrics.frechet import frechet_rows
from audioldm.metrics.spectral import envelope_correlation, log_spectral_distance, signal_to_distortion
from audioldm.pipeline import edit
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.canvas import Canvas, Run
from audioldm.signal.level import normalise_peak
from audioldm.signal.splice import crossover, splice

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
HOLE = 1.0
"""Seconds that inpainting takes out."""
AROUND = 0.5
"""Seconds beside the hole that are heard with it: YAMNet's patches are 0.96 s."""
Progress = Callable[[], None]
"""Called once for every clip that is done."""


@dataclass(frozen=True)
class Held:
    """A real clip: its class, and a crop (N,) of the model's length at a peak of 0.5."""

    label: str
    wave: Tensor


def held_out(rows: Sequence[Row], pipe: AudioLDM, clips: int) -> list[Held]:
    """The first ``clips`` clips of fold 4, class by class in turn, each cut where it is loudest."""
    by_class = {label: [r for r in rows if r.fold == TEST_FOLD and label in r.labels] for label in PROMPTS}
    turns = [
        row for place in range(len(rows)) for found in by_class.values() for row in found[place : place + 1]
    ]
    size = pipe.spec.samples(pipe.defaults.seconds)
    found = []
    for row in turns[:clips]:
        wave = decode(row.path, pipe.spec.rate, start=row.start, seconds=row.seconds)
        wave = nnf.pad(wave, (0, max(0, size - len(wave))))
        begin = loudest(wave, size)
        found.append(Held(row.labels[0], normalise_peak(wave[begin : begin + size])))
    return found


def loudest(wave: Tensor, size: int) -> int:
    """Where the ``size`` samples of (N,) with the most energy begin.

    >>> loudest(torch.tensor([0.0, 1.0, 0.0, 2.0, 2.0, 0.0]), 2)
    3
    """
    power = nnf.pad(wave.double().square().cumsum(0), (1, 0))
    return int((power[size:] - power[: len(power) - size]).argmax())


def roundtrip(pipe: AudioLDM, wave: Tensor) -> Tensor:
    """The clip through the codec alone, which no edit can be better than."""
    return Canvas.of(pipe, wave).roundtrip(refine_phase=Run(pipe, "", 0, {}).refine_phase)


def super_resolution(
    pipe: AudioLDM, clips: Sequence[Held], cutoff: int, progress: Progress, **settings: Any
) -> list[dict[str, Any]]:
    """LSD against the truth, of the whole band and of what is above ``cutoff`` Hz; mean over clips.

    The input is the clip at a rate of twice the cutoff; plain resampling brings it back.   "codec" has the truth's own
    high band after the round trip.
    """
    rate = pipe.spec.rate
    found: dict[str, list[tuple[float, float]]] = {}
    for clip in clips:
        low = resample(resample(clip.wave, rate, 2 * cutoff), 2 * cutoff, rate)[: len(clip.wave)]
        edge = 0.9 * cutoff  # resampling begins to fall below half the rate
        made = {
            "plain resampling": low,
            "upscale": edit.upscale(pipe, low, cutoff=edge, **settings),
            "upscale, with the class as prompt": edit.upscale(
                pipe, low, PROMPTS[clip.label], cutoff=edge, **settings
            ),
            "codec (the truth's high band, round trip)": crossover(
                low, roundtrip(pipe, clip.wave), edge, rate
            ),
        }
        for name, wave in made.items():
            whole = log_spectral_distance(clip.wave, wave, rate=rate)
            above = log_spectral_distance(clip.wave, wave, rate=rate, low=cutoff)
            found.setdefault(name, []).append((whole, above))
        progress()
    return [
        {"cutoff_hz": cutoff, "method": name, "n": len(pairs), "lsd": mean_of(p[0] for p in pairs),
         "lsd_high": mean_of(p[1] for p in pairs)}
        for name, pairs in found.items()
    ]  # fmt: skip


def inpainting(
    pipe: AudioLDM, clips: Sequence[Held], yamnet: YamNet, progress: Progress, **settings: Any
) -> list[dict[str, Any]]:
    """A hole where every clip is loudest, filled in some ways, heard by YAMNet with what is beside it.

    Between two barks there is silence, and silence fills that best: so the hole takes a bark away.   FD: Frechet
    distance of the embeddings from the truth's.   KL: mean over clips of KL(truth || filled) of the normalised class
    scores.   The hole's level is measured too: silence and noise are wrong by level first.
    """
    rate, heard, truths = pipe.spec.rate, {}, []
    for clip in clips:
        length = len(clip.wave)
        size = min(pipe.spec.samples(HOLE), length // 2)
        edge = min(pipe.spec.samples(AROUND), (length - size) // 2)
        begin = edge + loudest(clip.wave[edge : length - edge], size)
        inside = slice(begin, begin + size)
        region = (inside.start / rate, inside.stop / rate)
        level = clip.wave[~mask_of(clip.wave, inside)].square().mean().sqrt()
        noise = level * torch.randn(clip.wave.shape, generator=torch.Generator().manual_seed(0))
        fills = {
            "no-op (silence)": torch.zeros_like(clip.wave),
            "noise at the clip's level": noise,
            "inpaint": edit.inpaint(pipe, clip.wave, PROMPTS[clip.label], regions=[region], **settings),
            "inpaint, no prompt": edit.inpaint(pipe, clip.wave, "", regions=[region], **settings),
            "codec (the truth, round trip)": roundtrip(pipe, clip.wave),
        }
        part = slice(inside.start - edge, inside.stop + edge)
        truths.append(listened(yamnet, clip.wave[part], rate))
        for name, fill in fills.items():
            wave = splice(clip.wave, fill, [(inside.start, inside.stop)], fade=round(edit.FADE * rate))
            step = (
                20 * (wave[inside].square().mean().sqrt() / clip.wave[inside].square().mean().sqrt()).log10()
            )
            heard.setdefault(name, []).append((*listened(yamnet, wave[part], rate), float(step)))
        progress()
    real = torch.cat([embedding for embedding, _ in truths])
    return [
        {"method": name, "n": len(clips), "fd": frechet_rows(real, torch.cat([e for e, _, _ in rows])),
         "kl": mean_of(divergence(t, s) for (_, t), (_, s, _) in zip(truths, rows, strict=True)),
         "level_db": known(median(step for *_, step in rows))}
        for name, rows in heard.items()
    ]  # fmt: skip


def transfers(
    pipe: AudioLDM,
    clips: Sequence[Held],
    listener: Listener,
    progress: Progress,
    *,
    invert: bool,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Every clip towards the next class, at each strength: is the target heard, and is the course kept?

    ``clap`` is the cosine of the model's own CLAP, which also steers it; ``heard`` the share that a classifier of real
    sounds hears as the target; ``kept`` the correlation of the loudness over time with the source.
    """
    labels, rate = list(PROMPTS), pipe.spec.rate
    found: dict[float, list[tuple[float, bool, float]]] = {strength: [] for strength in STRENGTHS}
    for clip in clips:
        target = labels[(labels.index(clip.label) + 1) % len(labels)]
        told, source = PROMPTS[target], PROMPTS[clip.label]
        for strength in STRENGTHS:
            wave = edit.transfer(
                pipe,
                clip.wave,
                told,
                strength=strength,
                invert=invert,
                source=source if invert else "",
                **settings,
            ).clamp(-1, 1)
            with torch.no_grad():
                near = pipe.clap.embed_text([told]) @ pipe.clap.embed_audio(wave[None, None], rate).T
            heard = listener.hear(resample(wave, rate, RATE)) == target
            found[strength].append((float(near), heard, envelope_correlation(clip.wave, wave, rate=rate)))
        progress()
    return [
        {"method": "invert" if invert else "sdedit", "strength": strength, "n": len(rows),
         "clap": mean_of(r[0] for r in rows), "heard": fmean(r[1] for r in rows), "kept": mean_of(r[2] for r in rows)}
        for strength, rows in found.items()
    ]  # fmt: skip


def denoising(
    pipe: AudioLDM, clips: Sequence[Held], progress: Progress, *, snr: float = 10.0, **settings: Any
) -> list[dict[str, Any]]:
    """White noise ``snr`` dB under each clip, and what is left of it: SI-SDR (dB) and LSD against the clean clip."""
    rate, found = pipe.spec.rate, {}
    for clip in clips:
        noise = torch.randn(clip.wave.shape, generator=torch.Generator().manual_seed(0))
        noisy = clip.wave + noise * clip.wave.square().mean().sqrt() * 10 ** (-snr / 20)
        made = {
            "no-op": noisy,
            "subtraction alone (strength 0)": edit.denoise(pipe, noisy, strength=0.0, **settings),
            "denoise, strength 0.3": edit.denoise(pipe, noisy, strength=0.3, **settings),
            "denoise, strength 0.3, with the class as prompt": edit.denoise(
                pipe, noisy, PROMPTS[clip.label], strength=0.3, **settings
            ),
        }
        for name, wave in made.items():
            pair = signal_to_distortion(clip.wave, wave), log_spectral_distance(clip.wave, wave, rate=rate)
            found.setdefault(name, []).append(pair)
        progress()
    return [
        {"method": name, "n": len(rows), "si_sdr_db": mean_of(r[0] for r in rows), "lsd": mean_of(r[1] for r in rows)}
        for name, rows in found.items()
    ]  # fmt: skip


def mask_of(wave: Tensor, inside: slice) -> Tensor:
    """(N,) True inside."""
    mask = torch.zeros(len(wave), dtype=torch.bool)
    mask[inside] = True
    return mask


def listened(yamnet: YamNet, wave: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """YAMNet's embeddings (P, 1024) and mean class scores (521,) of a wave, cut to full scale."""
    embedding, scores = yamnet.embed_and_scores(resample(wave.clamp(-1, 1), rate, RATE))
    return embedding, scores.mean(0)


def divergence(truth: Tensor, other: Tensor) -> float:
    """KL of two score vectors, each made to sum to 1, in nats."""
    p, q = (
        scores.double().clamp(min=1e-7) / scores.double().clamp(min=1e-7).sum() for scores in (truth, other)
    )
    return float((p * (p / q).log()).sum())


def mean_of(values: Any) -> float:
    """The mean of what is a number; a silent clip has no distance."""
    numbers = [value for value in values if value == value]
    return fmean(numbers) if numbers else float("nan")


def known(value: float) -> float | None:
    """None, which JSON can say, where a level is that of silence."""
    return value if isfinite(value) else None


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a table.

    >>> print(markdown([{"a": 1, "b": 0.12345}]))
    | a | b |
    |---|---|
    | 1 | 0.123 |
    """
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = (
            f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value)
            for value in row.values()
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
