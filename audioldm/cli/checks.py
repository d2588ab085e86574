"""Refusals before work: numbers, names and devices that no run could use."""

import math
from pathlib import Path

from audioldm.errors import AudioLDMError

LONGEST = 600.0
"""seconds; more is taken for a slip of the keyboard"""
FORMATS = ("wav", "flac")
DTYPES = ("float32", "bfloat16", "float16")
MODES = ("exact", "split", "fast", "compiled")
DEVICES = ("auto", "cpu", "cuda", "mps")


def check_numbers(
    *,
    n: int,
    seconds: float | None,
    steps: int | None,
    guidance: float | None,
    seed: int,
    batch_size: int | None,
    refine_phase: int | None = None,
    retry_silent: int | None = None,
) -> None:
    """Refuse numbers that no run could use; None means the model's own."""
    if n < 1:
        raise AudioLDMError(f"-n={n} is not a number of clips.", "Use 1 or more.")
    if seconds is not None and not 0 < seconds <= LONGEST:
        raise AudioLDMError(
            f"seconds={seconds:g} is not a length of sound.", f"Use more than 0 and at most {LONGEST:g}."
        )
    if steps is not None and not 1 <= steps <= 1000:
        raise AudioLDMError(f"steps={steps} is not a number of steps.", "Use 1 to 1000.")
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
        raise AudioLDMError(
            f"guidance={guidance:g} is not a guidance scale.", "Use 0 or more; 1 is no guidance."
        )
    if not 0 <= seed < 2**62:
        raise AudioLDMError(f"seed={seed} is not a seed.", "Use 0 or more, below 2^62.")
    if refine_phase is not None and not 0 <= refine_phase <= 1000:
        raise AudioLDMError(f"refine_phase={refine_phase} is not a number of rounds.", "Use 0 to 1000.")
    if retry_silent is not None and not 0 <= retry_silent <= 100:
        raise AudioLDMError(f"retry_silent={retry_silent} is not a number of draws.", "Use 0 to 100.")
    if batch_size is not None and batch_size < 1:
        raise AudioLDMError(f"batch-size={batch_size} is not a number of clips.", "Use 1 or more.")


def check_share(**shares: float | None) -> None:
    """Refuse a share outside 0 to 1; None means none was given."""
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise AudioLDMError(f"{name}={value:g} is not a share.", "Use 0 to 1.")


def check_names(*, audio_format: str, device: str, dtype: str | None, out: Path, mode: str = "exact") -> None:
    """Refuse unknown words before anything heavy is imported."""
    if audio_format not in FORMATS:
        raise AudioLDMError(f"format={audio_format!r} is unknown.", f"Known: {', '.join(FORMATS)}.")
    if dtype is not None and dtype not in DTYPES:
        raise AudioLDMError(f"dtype={dtype!r} is unknown.", f"Known: {', '.join(DTYPES)}.")
    if mode not in MODES:
        raise AudioLDMError(f"mode={mode!r} is unknown.", f"Known: {', '.join(MODES)}.")
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise AudioLDMError(f"device={device!r} is unknown.", f"Known: {', '.join(DEVICES)}, cuda:N.")
    if out.suffix.lstrip(".").lower() in FORMATS:
        raise AudioLDMError(
            f"out={out} looks like a file.", "Name a folder; file names come from prompt and seed."
        )


def check_parts(*, sampler: str | None, grid: str | None, device: str) -> None:
    """Refuse a sampler, a grid or a device that is not there; needs torch, but no weights."""
    import torch

    from audioldm.diffusion.grids import GRIDS
    from audioldm.diffusion.samplers import SAMPLERS
    from audioldm.diffusion.table import choose

    if sampler is not None:
        choose(SAMPLERS, sampler, "sampler")
    if grid is not None:
        choose(GRIDS, grid, "grid")
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise AudioLDMError(
            f"device={device} is not here: torch sees {torch.cuda.device_count()}.", "Use --device cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise AudioLDMError("device=mps is not here.", "Use --device cpu.")
