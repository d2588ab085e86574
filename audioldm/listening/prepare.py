"""Make a listening test: a folder with blind sounds, what raters may know (test.json), and the key (key.json)."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioldm.datasets import manifest
from audioldm.errors import AudioLDMError
from audioldm.evaluation import clips as recordings
from audioldm.listening import stimuli
from audioldm.listening.design import METHODS, PAIRED, Design, plan, versions
from audioldm.listening.folder import FORMAT, RESPONSES, Test, load
from audioldm.paths import staged
from audioldm.progress import counted

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

    def check(self, systems: dict[str, Path]) -> None:
        for wrong, message, hint in self.rules(systems):
            if wrong:
                raise AudioLDMError(message, hint)

    def rules(self, systems: dict[str, Path]) -> Iterator[tuple[bool, str, str]]:
        """Whether a rule is broken, what to say then, and what to do; each may count on those before it."""
        known, count, anchors = ", ".join(systems), len(systems), ", ".join(stimuli.ANCHOR_HZ)
        strange = self.method not in METHODS
        yield strange, f"method={self.method!r} is not a method.", f"Use one of {', '.join(METHODS)}."
        yield not systems, "There is no system to rate.", "Give a folder of clips for each."
        alone = METHODS[self.method][0] in PAIRED and count < 2
        yield alone, f"{self.method} compares systems; {count} is there.", "Give 2 or more."
        strange = self.reference not in (None, *systems)
        yield strange, f"reference={self.reference!r} is not a system.", f"Use one of {known}."
        for name in systems:
            strange = not name.strip() or not name.isprintable() or ":" in name or name in stimuli.ANCHOR_HZ
            yield strange, f"{name!r} cannot be a system's name.", "Choose another: NAME=FOLDER."
        for name in self.anchors:
            yield name not in stimuli.ANCHOR_HZ, f"anchor={name!r} is unknown.", f"Use {anchors}."
        for label in ("per_rater", "training", "catch", "repeats"):
            value = getattr(self, label) or 0
            yield not 0 <= value <= 1000, f"{label}={value} is not a number of trials.", "Use 0 to 1000."
        if self.method == "mushra":
            lone, slots = self.reference is None or count < 2, count + len(self.anchors)
            yield lone, "mushra needs a reference and a system.", "Name the original's folder by --reference."
            yield slots > MOST_SLOTS, f"{slots} signals on a page.", f"Use {MOST_SLOTS} or fewer."


def gather(
    systems: dict[str, Path], captions: Path | None = None, *, common: bool = False
) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """Match the systems' clips by their names without suffix; ``common`` leaves out what some system lacks.

    Captions come from ``captions`` (CSV with id and caption, or a manifest), else from beside the clips.
    Gives prompt id -> system -> file, and prompt id -> caption ("" where none is known).
    """
    folders = {name: {one.id: one for one in recordings.from_folder(systems[name])} for name in systems}
    every = set().union(*folders.values())
    shared = sorted(every.intersection(*folders.values()))
    if len(every) > len(shared) and not common:
        prompt = min(every.difference(shared))
        lacking = next(name for name, clips in folders.items() if prompt not in clips)
        what = f"{len(every) - len(shared)} of {len(every)} clips are not in every folder: {lacking} lacks {prompt!r}."
        raise AudioLDMError(what, "Add what is missing, or use --common to compare only what all have.")
    if not shared:
        raise AudioLDMError("No clip has the same name in every folder.", "Name clips of one prompt alike.")
    clips = {prompt: {name: folders[name][prompt] for name in systems} for prompt in shared}
    files = {prompt: {name: clip.path for name, clip in alike.items()} for prompt, alike in clips.items()}
    if captions is None:
        return files, {prompt: common_prompt(alike.values()) for prompt, alike in clips.items()}
    return files, captions_of(shared, captions)


def captions_of(prompts: list[str], path: Path) -> dict[str, str]:
    """Their captions from a CSV with the columns id and caption, or from a manifest (id = file's stem)."""
    if not path.is_file():
        raise AudioLDMError(f"There is no file {path}.", "Give a CSV with id,caption or a manifest.")
    if path.suffix.lower() == ".jsonl":
        table = {Path(row.path).stem: row.captions[0] for row in manifest.read(path) if row.captions}
    else:
        table = recordings.read_captions(path)
    if missing := [prompt for prompt in prompts if prompt not in table]:
        what = f"{path} has no caption for {missing[0]!r} ({len(missing)} missing)."
        raise AudioLDMError(what, "Add a line for each clip.")
    return {prompt: table[prompt] for prompt in prompts}


def common_prompt(clips: Iterable[recordings.Clip]) -> str:
    """The caption of the clips of one prompt; they must agree."""
    prompts = {clip.caption: clip.path for clip in clips if clip.caption}
    if len(prompts) > 1:
        (one, first), (other, second) = list(prompts.items())[:2]
        what = f"{first} says {one!r}, {second} says {other!r}."
        raise AudioLDMError(what, "Clips of one name must have one prompt.")
    return next(iter(prompts), "")


def prepare(
    systems: dict[str, Path],
    out: str | Path,
    choices: Choices | None = None,
    *,
    captions: Path | None = None,
    force: bool = False,
) -> Test:
    """Write the test of ``systems`` (name to folder of clips) to the folder ``out``, whole or not at all.

    A folder that already holds answers is never overwritten.   Raises AudioLDMError for clips that do not match, are
    silent, or differ in length.
    """
    out, choices = Path(out), choices or Choices()
    check_free(out, force=force)
    choices.check(systems)
    sources, texts = gather(systems, captions, common=choices.common)
    design = designed(list(systems), texts, choices)
    with staged(out, folder=True, replace=True) as folder:
        (folder / "audio").mkdir()
        clips, shortened = dict[str, dict[str, Any]](), 0
        for prompt, files in counted(sources.items(), "prompts"):
            waves = {name: stimuli.read(path) for name, path in files.items()}
            shortest = check_lengths(prompt, list(map(len, waves.values())), choices)
            shortened += max(map(len, waves.values())) > shortest
            waves = {name: wave[:shortest] for name, wave in waves.items()}
            sounds = {name: stimuli.version(name, waves, design.reference) for name in versions(design)}
            for name, (wave, lufs, gain) in stimuli.level(sounds).items():
                blind, content = stimuli.blind_name(design.secret, name, prompt), stimuli.pcm16(wave)
                (folder / "audio" / blind).write_bytes(content)
                clips[blind] = {
                    "version": name, "prompt": prompt, "source": str(files[name]) if name in files else None,
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "seconds": round(len(wave) / stimuli.RATE, 4),
                    "lufs_before": lufs, "gain_db": gain,
                }  # fmt: skip
        checks = {"volume": stimuli.volume_noise(), **{f"beeps{n}": stimuli.beeps(n) for n in BEEPS}}
        for name, wave in checks.items():
            (folder / "audio" / f"{name}.wav").write_bytes(stimuli.pcm16(wave))
        describe(folder, design, clips, title=choices.title, prompts_cut_to_one_length=shortened)
        check_free(out, force=force)  # it may have got answers meanwhile
    return load(out)


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over anything, and over answers always."""
    if (out / RESPONSES).exists():
        raise AudioLDMError(f"{out} holds answers of raters.", "Use another folder, or move it away.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not force:
            raise AudioLDMError(f"{out} exists.", "Use another folder, or --force to make the test anew.")
        if not (out / "test.json").is_file():
            raise AudioLDMError(f"{out} is not a listening test.", "--force replaces only a test.")


def designed(systems: list[str], texts: dict[str, str], choices: Choices) -> Design:
    """The design, with a tenth of catch trials and of repeats where no number is asked for."""
    prompts, captions = tuple(texts), tuple(texts.values())
    if "relevance" in METHODS[choices.method]:
        if "" in captions:
            prompt = prompts[captions.index("")]
            raise AudioLDMError(f"{prompt!r} has no caption to judge relevance by.", "Use --captions.")
        if len(set(captions)) < 2:
            raise AudioLDMError("All captions are equal.", "Relevance needs 2 different ones.")
    secret = secrets.token_hex(16)
    if choices.seed is not None:
        secret = hashlib.sha256(f"audioldm listen {choices.seed}".encode()).hexdigest()[:32]
    base = Design(
        choices.method, tuple(systems), prompts, captions, reference=choices.reference,
        anchors=choices.anchors if choices.method == "mushra" else (),
        per_rater=min(choices.per_rater, len(prompts)), training=choices.training, catch=0, repeats=0, secret=secret,
    )  # fmt: skip
    main = sum(trial.kind == "main" for trial in plan(base, 0)) // len(METHODS[choices.method])
    tenth = max(1, round(main / 10))
    catch = max(2, tenth) if choices.catch is None else choices.catch
    return replace(base, catch=catch, repeats=tenth if choices.repeats is None else choices.repeats)


def check_lengths(prompt: str, samples: list[int], choices: Choices) -> int:
    shortest, longest = (size / stimuli.RATE for size in (min(samples), max(samples)))
    if shortest < SHORTEST_SECONDS:
        what = f"A clip of {prompt!r} lasts {shortest:.2f} s."
        raise AudioLDMError(what, f"Use clips of {SHORTEST_SECONDS:g} s or more.")
    if longest > shortest * (1 + UNEVEN) and not choices.cut:
        what = f"The clips of {prompt!r} last {shortest:.2f} to {longest:.2f} s."
        raise AudioLDMError(what, "Make them of one length, or use --cut to cut all to the shortest.")
    return min(samples)


def describe(folder: Path, design: Design, clips: dict[str, dict[str, Any]], **more: Any) -> None:
    """Write test.json and key.json; the first names the hash of the second."""
    content = {"format": FORMAT, "design": asdict(design), "clips": clips}
    key = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "key.json").touch(mode=0o600)
    (folder / "key.json").write_text(key, encoding="utf-8")
    gaps = [clip["lufs_before"] + clip["gain_db"] - stimuli.TARGET_LUFS for clip in clips.values()]
    gaps = [gap for gap in gaps if abs(gap) > 0.5]
    trials = plan(design, 0)
    # every clip once and a half, and 5 s to decide
    mean = float(np.mean([clip["seconds"] for clip in clips.values()]))
    seconds = sum(1.5 * mean * (len(trial.slots) + (trial.reference is not None)) + 5 for trial in trials)
    public = {
        "format": FORMAT, "method": design.method, "systems": len(design.systems), "prompts": len(design.prompts),
        "rate": stimuli.RATE, "lufs": stimuli.TARGET_LUFS, "clips": len(clips), "clips_below_target": len(gaps),
        "largest_headroom_db": round(-min(gaps), 2) if gaps else 0.0, "trials_per_rater": len(trials),
        "minutes_per_rater": max(1, round(seconds / 60)), "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
        **more,
    }  # fmt: skip
    text = json.dumps(public, indent=1, ensure_ascii=False)
    (folder / "test.json").write_text(text, encoding="utf-8")
