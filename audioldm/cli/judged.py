"""Which clips ``audioldm evaluate`` compares: those of folders and manifests, or a model's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.bars import stepping
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.comparison import Comparison
    from audioldm.evaluation.sets import Item


@dataclass(frozen=True)
class Choice:
    """Which rows of a manifest, and which of their captions."""

    split: str
    captions: str
    protocol: Path | None
    allow_missing: bool
    limit: int | None

    def rows(self, path: Path) -> "list[Row]":
        """The rows of a manifest."""
        from audioldm.datasets import manifest
        from audioldm.evaluation import protocol as protocols
        from audioldm.evaluation.bars.sounds import shuffled

        rows = manifest.read(path, split=None if self.split == "any" or self.protocol else self.split)
        if self.protocol is not None:
            rows = protocols.read(self.protocol).select(rows, allow_missing=self.allow_missing)
        if self.limit is not None and self.limit < len(rows):
            rows = shuffled(rows)[: self.limit]
        if len(rows) < 2:
            raise AudioLDMError(f"{path} has {len(rows)} rows in split {self.split}.", "Use --split any.")
        return rows

    def items(self, place: Path) -> "list[Item]":
        """The clips of a folder or a manifest."""
        from audioldm.evaluation import sets

        if place.suffix == ".jsonl":
            return sets.from_rows(self.rows(place), captions=self.captions)
        return sets.from_folder(place)

    def about(self) -> dict[str, Any]:
        """For the report."""
        from audioldm.evaluation import protocol as protocols

        told: dict[str, Any] = {"captions": self.captions, "split": self.split}
        if self.protocol is not None:
            chosen = protocols.read(self.protocol)
            told |= {"protocol": chosen.name, "protocol_sha256": chosen.sha256, "asked": len(chosen.items)}
        return told


def folders(
    generated: Path,
    also: list[Path],
    reference: Path,
    choose: Choice,
    *,
    pairs: bool,
    crop: float | None,
    gain: str,
) -> "tuple[Comparison, dict[str, Any]]":
    """Clips that exist against clips that exist."""
    from dataclasses import replace

    from audioldm.evaluation import sets
    from audioldm.evaluation.comparison import Comparison
    from audioldm.evaluation.listened import Frame

    runs = [sets.from_folder(folder) for folder in (generated, *also)]
    real = choose.items(reference)
    if pairs:
        runs = [sets.paired(run, real)[0] for run in runs]
        real = sets.paired(runs[0], real)[1]
        told = {item.id: item.caption for item in real}
        runs = [[replace(item, caption=told[item.id] or item.caption) for item in run] for run in runs]
    rates = [sets.check_files(run, "generated") for run in runs]
    about = {"generated": str(generated), "reference": str(reference), **choose.about(), "seeds": len(runs)}
    about |= {"rate": rates[0], "reference_rate": sets.check_files(real, "reference"), "pairs": pairs}
    length = crop or max(sets.seconds_of(item) for item in runs[0])
    return Comparison(runs, real, Frame(length, gain), pairs=pairs), about


def model_run(
    pipe: Any, settings: dict[str, Any], manifest: Path, choose: Choice, out: Path, *,
    seeds: int, crop: float | None, gain: str, batch_size: int | None,
) -> "tuple[Comparison, dict[str, Any]]":  # fmt: skip
    """Clips that a model makes now, or made before with the same settings."""
    from audioldm.evaluation import of_model, sets
    from audioldm.evaluation.clips import Clips
    from audioldm.evaluation.comparison import Comparison
    from audioldm.evaluation.listened import Frame

    real = choose.items(manifest)
    if lacking := [item.id for item in real if not item.caption.strip()]:
        raise AudioLDMError(
            f"{len(lacking)} clips have no caption, {lacking[0]} first.", "Caption every row."
        )
    rate = sets.check_files(real, "reference")
    clips = Clips(pipe, out / "clips", settings, batch_size=batch_size)
    with stepping("generating", seeds * len(real)) as step:
        clips.on_clip = step
        runs = [of_model.generated(clips, real, run=run) for run in range(seeds)]
    length = float(settings.get("seconds") or pipe.defaults.seconds)
    trip = through(pipe, real, length, out)
    about = {
        "model": pipe.name, "sha256": pipe.hashes, "generated_with": {**vars(pipe.defaults), **settings},
        "dtype": str(pipe.dtype), "device": str(pipe.device), "manifest": str(manifest), **choose.about(),
        "seeds": seeds, "candidates": 1, "rate": pipe.spec.rate, "reference_rate": rate, "pairs": True,
    }  # fmt: skip
    return Comparison(
        runs, real, Frame(crop or length, gain), trip=trip, others=other_rows(manifest, real)
    ), about


def through(pipe: Any, real: "list[Item]", seconds: float, out: Path) -> "list[Item]":
    """The reference after the VAE and the vocoder of ``pipe``."""
    from audioldm.evaluation import of_model

    with stepping("VAE and vocoder", len(real)) as step:
        return of_model.round_trips(pipe, real, seconds, out / "roundtrip", step=step)


def other_rows(manifest: Path, real: "list[Item]") -> "list[Item]":
    """Clips of the manifest's other splits that share no recording with the reference: for the real/real floor."""
    from audioldm.datasets import manifest as manifests
    from audioldm.evaluation import sets
    from audioldm.evaluation.bars.sounds import shuffled

    used = {item.group for item in real}
    rows = [row for row in shuffled(manifests.read(manifest)) if (row.group or row.path) not in used]
    return sets.from_rows(rows)
