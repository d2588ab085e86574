"""Make a listening test: a folder with blind sounds, what raters may know (test.json), and the key (key.json)."""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioldm.errors import AudioLDMError
from audioldm.listening import stimuli
from audioldm.listening.design import METHODS, PAIRED, Design, plan, versions
from audioldm.listening.folder import FORMAT, RESPONSES, Test, load
from audioldm.listening.sources import Sources, gather

SHORTEST_SECONDS = 0.3
UNEVEN = 0.1
"""Clips of one prompt that differ by more than this share in length are refused: length would tell them apart."""
MOST_SLOTS = 12
"""BS.1534-3: more signals on a page cannot be compared"""
BEEPS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Choices:
    """How the test is to be; None means a tenth of the trials."""

    method: str = "ab"
    title: str = "Listening test"
    reference: str | None = None
    anchors: tuple[str, ...] = ("anchor3500",)
    per_rater: int = 0
    training: int = 2
    catch: int | None = None
    repeats: int | None = None
    cut: bool = False
    common: bool = False
    seed: int | None = None
    """fixes names and orders, for a test that can be made again; None draws them from the system"""


@dataclass
class Maker:
    """Writes sounds and remembers what each blind file is."""

    folder: Path
    design: Design
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)

    def add(self, prompt: str, files: dict[str, Path], *, cut: bool) -> None:
        """Read, cut to one length, level and write every version of one prompt."""
        waves = {name: stimuli.read(path) for name, path in files.items()}
        waves = self.one_length(prompt, waves, cut=cut)
        made = {name: stimuli.version(name, waves, self.design.reference) for name in versions(self.design)}
        for name, stimulus in stimuli.level(made).items():
            blind = stimuli.blind_name(self.design.secret, name, prompt)
            content = stimuli.pcm16(stimulus.wave)
            (self.folder / "audio" / blind).write_bytes(content)
            self.clips[blind] = {
                "version": name,
                "prompt": prompt,
                "source": str(files[name]) if name in files else None,
                "sha256": hashlib.sha256(content).hexdigest(),
                "seconds": round(len(stimulus.wave) / stimuli.RATE, 4),
                "lufs_before": stimulus.lufs,
                "gain_db": stimulus.gain_db,
            }

    def one_length(
        self, prompt: str, waves: dict[str, stimuli.Wave], *, cut: bool
    ) -> dict[str, stimuli.Wave]:
        """All cut to the shortest."""
        shortest, longest = min(map(len, waves.values())), max(map(len, waves.values()))
        if shortest < SHORTEST_SECONDS * stimuli.RATE:
            raise AudioLDMError(
                f"A clip of {prompt!r} lasts {shortest / stimuli.RATE:.2f} s.",
                f"Use clips of {SHORTEST_SECONDS:g} s or more.",
            )
        if longest > shortest * (1 + UNEVEN) and not cut:
            raise AudioLDMError(
                f"The clips of {prompt!r} last {shortest / stimuli.RATE:.2f} to {longest / stimuli.RATE:.2f} s.",
                "Make them of one length, or use --cut to cut all to the shortest.",
            )
        if longest > shortest:
            self.cut.append(prompt)
        return {name: wave[:shortest] for name, wave in waves.items()}


def prepare(
    systems: dict[str, Path],
    out: str | Path,
    choices: Choices | None = None,
    *,
    captions: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Test:
    """Write the test of ``systems`` (name to folder of clips) to the folder ``out``, whole or not at all.

    A folder that already holds answers is never overwritten.   Raises AudioLDMError for clips that do not match, are
    silent, or differ in length.
    """
    out, choices = Path(out), choices or Choices()
    check_free(out, force=force)
    check_choices(systems, choices)
    sources = gather(systems, captions, common=choices.common)
    design = designed(systems, sources, choices)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        maker = Maker(folder, design)
        (folder / "audio").mkdir()
        for done, (prompt, files) in enumerate(sources.files.items(), start=1):
            maker.add(prompt, files, cut=choices.cut)
            if progress is not None:
                progress(done, len(sources.files))
        write_common_sounds(folder)
        write_descriptions(folder, maker, choices)
        os.chmod(folder, 0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return load(out)


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over anything, and over answers always."""
    if (out / RESPONSES).exists():
        raise AudioLDMError(
            f"{out} holds answers of raters.", "Use another folder, or move it away yourself."
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not force:
            raise AudioLDMError(f"{out} exists.", "Use another folder, or --force to make the test anew.")
        if not (out / "test.json").is_file():
            raise AudioLDMError(f"{out} is not a listening test.", "--force replaces only a test.")


def check_choices(systems: dict[str, Path], choices: Choices) -> None:
    """Refuse a test that cannot be."""
    if choices.method not in METHODS:
        raise AudioLDMError(
            f"method={choices.method!r} is not a method.", f"Use one of {', '.join(METHODS)}."
        )
    tasks = METHODS[choices.method]
    if any(task in PAIRED for task in tasks) and len(systems) < 2:
        raise AudioLDMError(
            f"{choices.method} compares systems; {len(systems)} was given.", "Give 2 or more."
        )
    if not systems:
        raise AudioLDMError("No system was given.", "Give a folder of clips for each.")
    if choices.reference is not None and choices.reference not in systems:
        raise AudioLDMError(
            f"reference={choices.reference!r} is not a system.", f"Use one of {', '.join(systems)}."
        )
    if choices.method == "mushra" and (choices.reference is None or len(systems) < 2):
        raise AudioLDMError(
            "mushra needs a reference and a system.", "Name the original's folder by --reference."
        )
    if unknown := [name for name in choices.anchors if name not in stimuli.ANCHOR_HZ]:
        raise AudioLDMError(f"anchor={unknown[0]!r} is unknown.", f"Use {', '.join(stimuli.ANCHOR_HZ)}.")
    if taken := [name for name in systems if name in stimuli.ANCHOR_HZ or ":" in name or not name.strip()]:
        raise AudioLDMError(f"{taken[0]!r} cannot be a system's name.", "Choose another: NAME=FOLDER.")
    if choices.method == "mushra" and len(systems) + len(choices.anchors) > MOST_SLOTS:
        raise AudioLDMError(
            f"{len(systems) + len(choices.anchors)} signals on a page.", f"Use {MOST_SLOTS} or fewer."
        )
    for name in ("per_rater", "training", "catch", "repeats"):
        value = getattr(choices, name)
        if value is not None and not 0 <= value <= 1000:
            raise AudioLDMError(f"{name}={value} is not a number of trials.", "Use 0 to 1000.")


def designed(systems: dict[str, Path], sources: Sources, choices: Choices) -> Design:
    """The design, with a tenth of catch trials and of repeats where no number is given."""
    captions = tuple(sources.captions.values())
    if "relevance" in METHODS[choices.method]:
        if "" in captions:
            prompt = next(name for name, text in sources.captions.items() if not text)
            raise AudioLDMError(f"{prompt!r} has no caption to judge relevance by.", "Use --captions.")
        if len(set(captions)) < 2:
            raise AudioLDMError("All captions are equal.", "Relevance needs 2 different ones.")
    secret = secrets.token_hex(16)
    if choices.seed is not None:
        secret = hashlib.sha256(f"audioldm listen {choices.seed}".encode()).hexdigest()[:32]
    prompts = tuple(sources.files)
    base = Design(
        choices.method,
        tuple(systems),
        prompts,
        captions,
        reference=choices.reference,
        anchors=choices.anchors if choices.method == "mushra" else (),
        per_rater=min(choices.per_rater, len(prompts)),
        training=choices.training,
        catch=0,
        repeats=0,
        secret=secret,
    )
    main = sum(trial.kind == "main" for trial in plan(base, 0)) // len(METHODS[choices.method])
    tenth = max(1, round(main / 10))
    return Design(
        **{
            **base.__dict__,
            "catch": max(2, tenth) if choices.catch is None else choices.catch,
            "repeats": tenth if choices.repeats is None else choices.repeats,
        }
    )


def write_common_sounds(folder: Path) -> None:
    """What the volume check plays."""
    (folder / "audio" / "volume.wav").write_bytes(stimuli.pcm16(stimuli.volume_noise()))
    for count in BEEPS:
        (folder / "audio" / f"beeps{count}.wav").write_bytes(stimuli.pcm16(stimuli.beeps(count)))


def write_descriptions(folder: Path, maker: Maker, choices: Choices) -> None:
    """test.json and key.json; the first names the hash of the second."""
    key = {"format": FORMAT, "design": asdict(maker.design), "clips": maker.clips}
    text = json.dumps(key, indent=1, ensure_ascii=False)
    path = folder / "key.json"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    off = [
        c for c in maker.clips.values() if abs(c["lufs_before"] + c["gain_db"] - stimuli.TARGET_LUFS) > 0.5
    ]
    headroom = [c["lufs_before"] + c["gain_db"] - stimuli.TARGET_LUFS for c in off]
    public = {
        "format": FORMAT,
        "title": choices.title,
        "method": choices.method,
        "systems": len(maker.design.systems),
        "prompts": len(maker.design.prompts),
        "rate": stimuli.RATE,
        "lufs": stimuli.TARGET_LUFS,
        "clips": len(maker.clips),
        "clips_below_target": len(off),
        "largest_headroom_db": round(-min(headroom), 2) if headroom else 0.0,
        "prompts_cut_to_one_length": len(maker.cut),
        "trials_per_rater": len(plan(maker.design, 0)),
        "minutes_per_rater": minutes(maker),
        "key_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    (folder / "test.json").write_text(json.dumps(public, indent=1, ensure_ascii=False), encoding="utf-8")


def minutes(maker: Maker) -> int:
    """How long a rater will take: every clip once and a half, and 5 s to decide."""
    seconds = float(np.mean([clip["seconds"] for clip in maker.clips.values()]))
    slots = [len(trial.slots) + (trial.reference is not None) for trial in plan(maker.design, 0)]
    return max(1, round(sum(1.5 * n * seconds + 5 for n in slots) / 60))
