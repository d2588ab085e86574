"""Can a seam be seen where windows, prompts, edits and loops meet?   waves (N,) at the model's rate, T mel frames.

Spectral flux near the seams against flux elsewhere in the same sounds, beside clips that were only put one after
another, which must stand out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from audioldm.diffusion.windows import starts
from audioldm.evaluation.edits import HOLE, Held, Progress
from audioldm.evaluation.recognition import PROMPTS
from audioldm.pipeline import edit, longform
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.spans import Span
from audioldm.signal.mel import log_mel
from audioldm.signal.splice import splice
from audioldm.spec import AudioSpec

STEADY = ("rain", "sea waves", "helicopter", "chainsaw")
"""Classes that sound all the time: between barks, everything is a change."""
WINDOWS = 2.5
"""Length of a long sound in the model's own windows."""
STAND_OUT = 0.95
"""Quantile of the flux elsewhere that a frame at a seam may pass as often as any other: 1 - STAND_OUT of the time."""


def flux(wave: Tensor, spec: AudioSpec) -> Tensor:
    """How much the log-mel changes from frame to frame (T - 1,): root mean square over bands, in nepers.

    >>> tuple(flux(torch.zeros(16000), AudioSpec()).shape)
    (99,)
    """
    return log_mel(wave[None, None], spec)[0, 0].diff(dim=0).square().mean(1).sqrt()


def near(count: int, seams: Sequence[float], spec: AudioSpec) -> Tensor:
    """(count,) True within a latent frame of a seam (seconds)."""
    middle = (torch.arange(count) + 1) * spec.hop / spec.rate
    found = torch.zeros(count, dtype=torch.bool)
    for seam in seams:
        found |= (middle - seam).abs() <= spec.seconds_per_latent
    return found


STILL = 0.05
"""nepers: the least unit, for clips that are digital silence most of the time"""


@dataclass
class Seams:
    """Flux at the seams and elsewhere of some sounds, each in units of its own median elsewhere."""

    at: list[Tensor] = field(default_factory=list)
    elsewhere: list[Tensor] = field(default_factory=list)

    def hear(self, wave: Tensor, seams: Sequence[float], spec: AudioSpec) -> None:
        """Add a sound whose seams are at these seconds."""
        change = flux(wave, spec)
        here = near(len(change), seams, spec)
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


def seams(pipe: AudioLDM, clips: Sequence[Held], progress: Progress, **settings: Any) -> list[dict[str, Any]]:
    """Sounds of several windows, prompts over time, loops; holes in ``clips`` filled; and what must be seen: glue."""
    found: dict[str, Seams] = {}

    def add(name: str, wave: Tensor, places: Sequence[float]) -> None:
        found.setdefault(name, Seams()).hear(wave, places, pipe.spec)

    for label in STEADY:
        generated(pipe, PROMPTS[label], add, settings)
        progress()
    for clip in clips:
        filled(pipe, clip, add, settings)
        progress()
    return [heard.row(name) for name, heard in found.items()]


Add = Callable[[str, Tensor, Sequence[float]], None]


def generated(pipe: AudioLDM, prompt: str, add: Add, settings: dict[str, Any]) -> None:
    """The same prompt long, gone over from another, in a circle, and glued."""
    window = longform.window_frames(pipe) * pipe.spec.seconds_per_latent
    seconds = WINDOWS * window
    long = pipe([prompt], seeds=[0], seconds=seconds, **settings)[0]
    add("long: where windows begin and end", long, joints(pipe, pipe.spec.latent_frames(seconds)))
    middle = seconds / 2
    both = [Span(0, middle, PROMPTS["fire crackling"]), Span(middle, seconds, prompt)]
    told = pipe([""], seeds=[0], seconds=seconds, timeline=both, **settings)[0]
    add("schedule: where the prompt changes", told, [middle])
    loop = pipe([prompt], seeds=[0], seconds=window, loop=True, **settings)[0]
    add("loop: where the end meets the begin", loop.repeat(2), [len(loop) / pipe.spec.rate])
    parts = pipe([prompt] * 2, seeds=[0, 1], seconds=window, **settings)
    add("glued: two clips, one after the other", parts.flatten(), [window])


def filled(pipe: AudioLDM, clip: Held, add: Add, settings: dict[str, Any]) -> None:
    """A hole filled by the model and spliced into the file; the file itself at those places; silence; one continued."""
    middle, half = len(clip.wave) / pipe.spec.rate / 2, HOLE / 2
    region = (middle - half, middle + half)
    inside = [(pipe.spec.samples(region[0]), pipe.spec.samples(region[1]))]
    fade = pipe.spec.samples(edit.FADE)
    made = edit.inpaint(pipe, clip.wave, "", regions=[region], **settings)
    add("inpaint --splice: ends of the region", splice(clip.wave, made, inside, fade=fade), region)
    add("the untouched clip at these places", clip.wave, region)
    add("silence at these places", splice(clip.wave, torch.zeros_like(clip.wave), inside, fade=fade), region)
    kept = clip.wave[: inside[0][1]]
    longer = edit.outpaint(pipe, kept, "", after=HOLE, **settings)
    add("continue: where the sound went on", longer, [len(kept) / pipe.spec.rate])
