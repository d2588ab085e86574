"""How good edits are, on real clips that no training saw: ESC-10's fold 4.   waves (N,) at the model's rate, T frames.

    python -m recipes.embedded.release_checks.edits --manifest data/raw/esc10.jsonl
    python -m recipes.embedded.release_checks.edits --manifest data/raw/esc10.jsonl --part upscale -o out/edits

Every measure has the truth, and what one gets without a model, beside the model's own.   Super-resolution: log-spectral
distance to the truth.   Inpainting: Frechet distance and KL of YAMNet.   Transfer: target recognised, envelope the
source's, over strength.   Denoising: SI-SDR.   Seams: spectral flux there against elsewhere.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as nnf

from audioldm.cli.console import progress
from audioldm.cli.options.groups import load
from audioldm.datasets import manifest
from audioldm.datasets.decode import decode, resample
from audioldm.datasets.manifest import Row
from audioldm.diffusion.windows import starts
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.evaluation.generation import Codec
from audioldm.metrics.distances import frechet_rows
from audioldm.pipeline import edit, longform
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.outputs import publish
from audioldm.pipeline.spans import Span
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import log_mel
from audioldm.signal.splice import crossover, splice
from audioldm.spec import AudioSpec
from audioldm.tables import markdown
from recipes.embedded.esc10 import PROMPTS, TEST_FOLD, Esc10Classifier, check
from recipes.embedded.release_checks.spectral import (
    envelope_correlation,
    log_spectral_distance,
    signal_to_distortion,
)

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
HOLE = 1.0
"""Seconds that inpainting takes out."""
AROUND = 0.5
"""Seconds beside the hole that are embedded with it: YAMNet's patches are 0.96 s."""
STEADY = ("rain", "sea waves", "helicopter", "chainsaw")
"""Classes that sound all the time: between barks, everything is a change."""
WINDOWS = 2.5
"""Length of a long sound in the model's own windows."""
STAND_OUT = 0.95
"""Quantile of the flux elsewhere that a frame at a seam may pass as often as any other: 1 - STAND_OUT of the time."""
STILL = 0.05
"""nepers: the least unit of flux, for clips that are digital silence most of the time"""
Progress = Callable[[], None]
"""Called once for every clip that is done."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RealClip:
    """Its class, and a crop (N,) of the model's length at a peak of 0.5."""

    label: str
    wave: Tensor


def real_clips(rows: Sequence[Row], pipe: AudioLDM, count: int) -> list[RealClip]:
    """The first ``count`` clips of fold 4, class by class in turn, each cut where it is loudest."""
    by_class = [[r for r in rows if r.fold == TEST_FOLD and label in r.labels] for label in PROMPTS]
    turns = [row for place in range(len(rows)) for part in by_class for row in part[place : place + 1]]
    size = pipe.spec.samples(pipe.defaults.seconds)
    clips = []
    for row in turns[:count]:
        wave = decode(row.path, pipe.spec.rate, start=row.start, seconds=row.seconds)
        wave = nnf.pad(wave, (0, max(0, size - len(wave))))
        begin = loudest(wave, size)
        clips.append(RealClip(row.labels[0], normalise_peak(wave[begin : begin + size])))
    return clips


def loudest(wave: Tensor, size: int) -> int:
    """Where the ``size`` samples of (N,) with the most energy begin.

    >>> loudest(torch.tensor([0.0, 1.0, 0.0, 2.0, 2.0, 0.0]), 2)
    3
    """
    power = nnf.pad(wave.double().square().cumsum(0), (1, 0))
    return int((power[size:] - power[: len(power) - size]).argmax())


def through_codec(pipe: AudioLDM, wave: Tensor) -> Tensor:
    """The clip through VAE and vocoder alone, which no edit can be better than."""
    return Codec(pipe, len(wave) / pipe.spec.rate).round_trip(wave)[: len(wave)]


def noise_like(wave: Tensor) -> Tensor:
    """White noise (N,), the same for every clip of a length."""
    return torch.randn(wave.shape, generator=Generator().manual_seed(0))


def rms(wave: Tensor) -> Tensor:
    """Root mean square."""
    return wave.square().mean().sqrt()


def mean_of(values: Iterable[float]) -> float:
    """The mean of what is a number; a silent clip has no distance."""
    numbers = [value for value in values if not isnan(value)]
    return fmean(numbers) if numbers else float("nan")


def averaged(name: str, values: dict[Any, list[dict[str, float]]], **fixed: Any) -> Rows:
    """One row a key of ``values``, under ``name``: the number of clips and the mean of each measure."""
    return [
        {**fixed, name: key, "n": len(clips), **{m: mean_of(clip[m] for clip in clips) for m in clips[0]}}
        for key, clips in values.items()
    ]


def super_resolution(
    pipe: AudioLDM, clips: Sequence[RealClip], cutoff: int, progress: Progress, **settings: Any
) -> Rows:
    """LSD against the truth, of the whole band and of what is above ``cutoff`` Hz; mean over clips.

    The input is the clip at a rate of twice the cutoff; plain resampling brings it back.   "codec" has the truth's own
    high band after the round trip.
    """
    rate = pipe.spec.rate
    # resampling begins to fall below half the rate
    edge = 0.9 * cutoff
    values: dict[str, list[dict[str, float]]] = {}
    for clip in clips:
        low = resample(resample(clip.wave, rate, 2 * cutoff), 2 * cutoff, rate)[: len(clip.wave)]
        prompt = PROMPTS[clip.label]
        waves = {
            "plain resampling": low,
            "upscale": edit.upscale(pipe, low, cutoff=edge, **settings),
            "upscale, with the class as prompt": edit.upscale(pipe, low, prompt, cutoff=edge, **settings),
            "codec (the truth's high band, round trip)": crossover(
                low, through_codec(pipe, clip.wave), edge, rate
            ),
        }
        for name, wave in waves.items():
            whole = log_spectral_distance(clip.wave, wave, rate=rate)
            above = log_spectral_distance(clip.wave, wave, rate=rate, low=cutoff)
            values.setdefault(name, []).append({"lsd": whole, "lsd_high": above})
        progress()
    return averaged("method", values, cutoff_hz=cutoff)


def inpainting(
    pipe: AudioLDM, clips: Sequence[RealClip], yamnet: YamNet, progress: Progress, **settings: Any
) -> Rows:
    """A hole where every clip is loudest, filled in some ways, embedded by YAMNet with what is beside it.

    Between two barks there is silence, and silence fills that best: so the hole takes a bark away.   FD: Frechet
    distance of the embeddings from the truth's.   KL: mean over clips of KL(truth || filled) of the normalised class
    scores.   The hole's level is measured too: silence and noise are wrong by level first.
    """
    rate, truths = pipe.spec.rate, []
    results: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
    for clip in clips:
        length, prompt = len(clip.wave), PROMPTS[clip.label]
        size = min(pipe.spec.samples(HOLE), length // 2)
        edge = min(pipe.spec.samples(AROUND), (length - size) // 2)
        begin = edge + loudest(clip.wave[edge : length - edge], size)
        end, region = begin + size, [(begin / rate, (begin + size) / rate)]
        around = torch.cat([clip.wave[:begin], clip.wave[end:]])
        fills = {
            "no-op (silence)": torch.zeros_like(clip.wave),
            "noise at the clip's level": rms(around) * noise_like(clip.wave),
            "inpaint": edit.inpaint(pipe, clip.wave, prompt, regions=region, **settings),
            "inpaint, no prompt": edit.inpaint(pipe, clip.wave, "", regions=region, **settings),
            "codec (the truth, round trip)": through_codec(pipe, clip.wave),
        }
        part = slice(begin - edge, end + edge)
        truths.append(tagged(yamnet, clip.wave[part], rate))
        for name, fill in fills.items():
            wave = splice(clip.wave, fill, [(begin, end)], fade=round(edit.FADE * rate))
            level = 20 * (rms(wave[begin:end]) / rms(clip.wave[begin:end])).log10()
            results.setdefault(name, []).append((*tagged(yamnet, wave[part], rate), float(level)))
        progress()
    real = torch.cat([embedding for embedding, _ in truths])
    rows = []
    for name, parts in results.items():
        kl = mean_of(divergence(t, s) for (_, t), (_, s, _) in zip(truths, parts, strict=True))
        level = median(level for *_, level in parts)
        fd = frechet_rows(real, torch.cat([embedding for embedding, _, _ in parts]))
        # JSON has no infinity, which is the level of silence
        known = level if isfinite(level) else None
        rows.append({"method": name, "n": len(clips), "fd": fd, "kl": kl, "level_db": known})
    return rows


def tagged(yamnet: YamNet, wave: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """YAMNet's embeddings (P, 1024) and mean class scores (521,) of a wave, cut to full scale."""
    embeddings = yamnet.embed(resample(wave.clamp(-1, 1), rate, RATE))
    return embeddings.rows, embeddings.scores.mean(0)


def divergence(truth: Tensor, other: Tensor) -> float:
    """KL of two score vectors, each made to sum to 1, in nats."""
    p, q = (scores.double().clamp(min=1e-7) for scores in (truth, other))
    p, q = p / p.sum(), q / q.sum()
    return float((p * (p / q).log()).sum())


def transfers(
    pipe: AudioLDM, clips: Sequence[RealClip], classifier: Esc10Classifier, progress: Progress, *,
    invert: bool, **settings: Any,
) -> Rows:  # fmt: skip
    """Every clip towards the next class, at each strength: is the target recognised, is the envelope the source's?

    ``clap`` is the cosine of the model's own CLAP, which also steers it; ``recognised`` the share that a classifier of
    real sounds takes for the target; ``envelope`` the correlation of the loudness over time with the source.
    """
    labels, rate = list(PROMPTS), pipe.spec.rate
    values: dict[float, list[dict[str, float]]] = {strength: [] for strength in STRENGTHS}
    for clip in clips:
        target = labels[(labels.index(clip.label) + 1) % len(labels)]
        prompt, source = PROMPTS[target], PROMPTS[clip.label] if invert else ""
        for strength in STRENGTHS:
            wave = edit.transfer(
                pipe, clip.wave, prompt, strength=strength, invert=invert, source=source, **settings
            ).clamp(-1, 1)
            with torch.no_grad():
                near = pipe.clap.embed_text([prompt]) @ pipe.clap.embed_audio(wave[None, None], rate).T
            right = classifier.classify(resample(wave, rate, RATE)) == target
            envelope = envelope_correlation(clip.wave, wave, rate=rate)
            values[strength].append({"clap": float(near), "recognised": float(right), "envelope": envelope})
        progress()
    return averaged("strength", values, method="invert" if invert else "sdedit")


def denoising(
    pipe: AudioLDM, clips: Sequence[RealClip], progress: Progress, *, snr: float = 10.0, **settings: Any
) -> Rows:
    """White noise ``snr`` dB under each clip, and what remains of it: SI-SDR (dB) and LSD against the clean clip."""
    values: dict[str, list[dict[str, float]]] = {}
    for clip in clips:
        noisy = clip.wave + noise_like(clip.wave) * rms(clip.wave) * 10 ** (-snr / 20)
        prompt = PROMPTS[clip.label]
        waves = {
            "no-op": noisy,
            "subtraction alone (strength 0)": edit.denoise(pipe, noisy, strength=0.0, **settings),
            "denoise, strength 0.3": edit.denoise(pipe, noisy, strength=0.3, **settings),
            "denoise, strength 0.3, with the class as prompt": edit.denoise(
                pipe, noisy, prompt, strength=0.3, **settings
            ),
        }
        for name, wave in waves.items():
            lsd = log_spectral_distance(clip.wave, wave, rate=pipe.spec.rate)
            row = {"si_sdr_db": signal_to_distortion(clip.wave, wave), "lsd": lsd}
            values.setdefault(name, []).append(row)
        progress()
    return averaged("method", values)


def flux(wave: Tensor, spec: AudioSpec) -> Tensor:
    """How much the log-mel changes from frame to frame (T - 1,): root mean square over bands, in nepers.

    >>> tuple(flux(torch.zeros(16000), AudioSpec()).shape)
    (99,)
    """
    return log_mel(wave[None, None], spec)[0, 0].diff(dim=0).square().mean(1).sqrt()


def near(count: int, places: Sequence[float], spec: AudioSpec) -> Tensor:
    """(count,) True within a latent frame of a seam (seconds)."""
    middle = (torch.arange(count) + 1) * spec.hop / spec.rate
    mask = torch.zeros(count, dtype=torch.bool)
    for place in places:
        mask |= (middle - place).abs() <= spec.seconds_per_latent
    return mask


@dataclass
class Seams:
    """Spectral flux at the seams and elsewhere of some sounds, each in units of its own median elsewhere."""

    at: list[Tensor] = field(default_factory=list)
    elsewhere: list[Tensor] = field(default_factory=list)

    def add(self, wave: Tensor, places: Sequence[float], spec: AudioSpec) -> None:
        """A sound whose seams are at these seconds."""
        change = flux(wave, spec)
        here = near(len(change), places, spec)
        unit = change[~here].median().clamp(min=STILL)
        self.at.append(change[here] / unit)
        self.elsewhere.append(change[~here] / unit)

    def row(self, name: str) -> dict[str, Any]:
        """Frames at seams, quantiles there and elsewhere, and how often a seam stands out (0.05 if it is like any)."""
        at, elsewhere = torch.cat(self.at), torch.cat(self.elsewhere)
        high = elsewhere.quantile(STAND_OUT)
        return {
            "method": name, "frames": len(at), "median": float(at.median()), "p95": float(at.quantile(STAND_OUT)),
            "p95_elsewhere": float(high), "stand_out": float((at > high).float().mean()),
        }  # fmt: skip


def joints(pipe: AudioLDM, frames: int) -> list[float]:
    """Where windows of a sound of ``frames`` latent frames begin and end, in seconds."""
    window = longform.window_frames(pipe)
    begins = starts(frames, window, max(1, window // 2))
    places = {place for begin in begins for place in (begin, begin + window) if 0 < place < frames}
    return [place * pipe.spec.seconds_per_latent for place in sorted(places)]


def seams(pipe: AudioLDM, clips: Sequence[RealClip], progress: Progress, **settings: Any) -> Rows:
    """Can a seam be seen where windows, prompts, edits and loops meet?   And glue, where it must be seen."""
    tables: dict[str, Seams] = {}

    def add(name: str, wave: Tensor, places: Sequence[float]) -> None:
        tables.setdefault(name, Seams()).add(wave, places, pipe.spec)

    for label in STEADY:
        generated_seams(pipe, PROMPTS[label], add, settings)
        progress()
    for clip in clips:
        edited_seams(pipe, clip, add, settings)
        progress()
    return [table.row(name) for name, table in tables.items()]


Add = Callable[[str, Tensor, Sequence[float]], None]


def generated_seams(pipe: AudioLDM, prompt: str, add: Add, settings: dict[str, Any]) -> None:
    """The same prompt long, after another one, in a circle, and glued."""
    window = longform.window_frames(pipe) * pipe.spec.seconds_per_latent
    seconds, middle = WINDOWS * window, WINDOWS * window / 2
    long = pipe([prompt], seeds=[0], seconds=seconds, **settings)[0]
    add("long: where windows begin and end", long, joints(pipe, pipe.spec.latent_frames(seconds)))
    timeline = [Span(0, middle, PROMPTS["fire crackling"]), Span(middle, seconds, prompt)]
    changing = pipe([""], seeds=[0], seconds=seconds, timeline=timeline, **settings)[0]
    add("schedule: where the prompt changes", changing, [middle])
    loop = pipe([prompt], seeds=[0], seconds=window, loop=True, **settings)[0]
    add("loop: where the end meets the begin", loop.repeat(2), [len(loop) / pipe.spec.rate])
    parts = pipe([prompt] * 2, seeds=[0, 1], seconds=window, **settings)
    add("glued: two clips, one after the other", parts.flatten(), [window])


def edited_seams(pipe: AudioLDM, clip: RealClip, add: Add, settings: dict[str, Any]) -> None:
    """A hole filled by the model and spliced into the file; the file itself at those places; silence; one continued."""
    middle, half = len(clip.wave) / pipe.spec.rate / 2, HOLE / 2
    region = (middle - half, middle + half)
    inside = [(pipe.spec.samples(region[0]), pipe.spec.samples(region[1]))]
    fade = pipe.spec.samples(edit.FADE)
    filled = edit.inpaint(pipe, clip.wave, "", regions=[region], **settings)
    add("inpaint --splice: ends of the region", splice(clip.wave, filled, inside, fade=fade), region)
    add("the untouched clip at these places", clip.wave, region)
    add("silence at these places", splice(clip.wave, torch.zeros_like(clip.wave), inside, fade=fade), region)
    begin = clip.wave[: inside[0][1]]
    longer = edit.outpaint(pipe, begin, "", after=HOLE, **settings)
    add("continue: where the sound went on", longer, [len(begin) / pipe.spec.rate])


CUTOFFS = (2000, 4000)
PARTS = ("upscale", "inpaint", "transfer", "invert", "denoise", "seams")


def measure(
    part: str,
    pipe: AudioLDM,
    clips: list[RealClip],
    rows: Sequence[Row],
    step: Progress,
    settings: dict[str, Any],
) -> Rows:
    """The rows of one part."""
    if part == "upscale":
        tables = [super_resolution(pipe, clips, hertz, step, **settings) for hertz in CUTOFFS]
        return [row for table in tables for row in table]
    if part == "inpaint":
        return inpainting(pipe, clips, YamNet(), step, **settings)
    if part in ("transfer", "invert"):
        classifier = Esc10Classifier.train(rows, YamNet())
        return transfers(pipe, clips, classifier, step, invert=part == "invert", **settings)
    return {"denoise": denoising, "seams": seams}[part](pipe, clips, step, **settings)


def run(options: argparse.Namespace) -> None:
    """Measure, write, print."""
    files = [options.out / "edits.json", options.out / "edits.md"] if options.out else []
    if not options.force and (there := [path for path in files if path.exists()]):
        raise AudioLDMError(f"{there[0]} exists.", "Use another --out, or --force.")
    rows = manifest.read(options.manifest)
    check(rows)
    pipe = load(options.model, device=options.device, dtype=options.dtype)
    values = {name: getattr(options, name) for name in ("steps", "guidance", "sampler", "refine_phase")}
    settings = {name: value for name, value in values.items() if value is not None}
    clips, tables = real_clips(rows, pipe, options.clips), {}
    for part in options.part or PARTS:
        count = len(clips) * (2 if part == "upscale" else 1) + len(STEADY) * (part == "seams")
        with progress(count, part) as step:
            tables[part] = measure(part, pipe, clips, rows, step, settings)
    text = f"{pipe.name}\n"
    for part, table in tables.items():
        cells = markdown(list(table[0]), [list(row.values()) for row in table])
        text += f"\n{part}\n\n{cells}\n"
    content = {"model": {"name": pipe.name, "sha256": pipe.hashes}, "settings": settings, **tables}
    publish(dict(zip(files, ((json.dumps(content, indent=1) + "\n").encode(), text.encode()), strict=False)))
    print(text, end="")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; a user's mistake becomes one line on stderr.  Returns the exit code."""
    line = argparse.ArgumentParser(prog="python -m recipes.embedded.release_checks.edits")
    line.add_argument("--manifest", type=Path, required=True, help="ESC-10's manifest, with folds 1 to 4")
    line.add_argument("-m", "--model", help="model folder (default: the embedded one)")
    line.add_argument("-o", "--out", type=Path, help="keep edits.json and edits.md here")
    line.add_argument("--clips", type=int, default=20, help="real clips of fold 4, class by class in turn")
    line.add_argument("--part", action="append", choices=PARTS, help="repeatable (default: all)")
    line.add_argument("--steps", type=int)
    line.add_argument("--guidance", type=float)
    line.add_argument("--sampler")
    line.add_argument("--refine-phase", type=int)
    line.add_argument("--device", default="auto")
    line.add_argument("--dtype", default="float32")
    line.add_argument("--force", action="store_true", help="overwrite results that exist")
    options = line.parse_args(arguments)
    try:
        run(options)
    except AudioLDMError as error:
        print(f"edits: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
