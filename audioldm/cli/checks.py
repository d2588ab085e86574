"""Refusals before work: devices, samplers, grids and places that no run could use."""

from pathlib import Path

from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    import torch

    from audioldm.diffusion import grids, samplers, table

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(device: str) -> None:
    """Raise AudioLDMError for a device that torch has no name for."""
    kind, _, index = device.partition(":")
    if device not in DEVICES and not (kind == "cuda" and index.isdecimal()):
        raise AudioLDMError(f"device={device!r} is unknown.", f"Known: {', '.join(DEVICES)}, cuda:N.")


def check_free(*paths: Path | None, force: bool = False) -> None:
    """Raise AudioLDMError if one of ``paths`` exists, unless it may be overwritten."""
    present = [] if force else [path for path in paths if path is not None and path.exists()]
    if present:
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        hint = "Pass --force to replace it, or name another place."
        raise AudioLDMError(f"{present[0]} is already there{more}.", hint)


def check_parts(*, sampler: str | None = None, grid: str | None = None, device: str = "cpu") -> None:
    """Raise AudioLDMError for a sampler, a grid or a device that is not there; needs torch, but no weights."""
    check_device(device)
    if sampler is not None:
        table.choose(samplers.SAMPLERS, sampler, "sampler")
    if grid is not None:
        table.choose(grids.GRIDS, grid, "grid")
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= (count := torch.cuda.device_count()):
        raise AudioLDMError(f"device={device} is not here: torch sees {count}.", "Use --device cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise AudioLDMError("device=mps is not here.", "Use --device cpu.")
