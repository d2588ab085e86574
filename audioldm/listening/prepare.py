"""Make a listening test: a folder with blind sounds, and test.json with what they are and who hears them."""

import hashlib
import io
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audioldm.errors import AudioLDMError
from audioldm.evaluation import clips as recordings
from audioldm.listening import stimuli
from audioldm.listening.design import ANCHOR, METHODS, PAIRED, Design, plan
from audioldm.listening.folder import FORMAT, RESPONSES, Test, load
from audioldm.paths import staged
from audioldm.progress import counted

SHORTEST_SECONDS = 0.3
# a prompt's clips that differ in length by a greater share are refused: it would tell them apart
UNEVEN = 0.1
MOST_SLOTS = 12  # BS.1534-3: more signals on a page cannot be compared
BEEPS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Choices:
    """How the test is to be; ``catch`` None means a tenth of the trials."""

    method: str = "ab"
    title: str = "Listening test"
    reference: str | None = None
    per_rater: int = 0
    training: int = 2
    catch: int | None = None
    cut: bool = False
    seed: int | None = None  # fixes names and orders, to make the test again; None draws from the system

    def rules(self, systems: dict[str, Path], texts: dict[str, str]) -> Iterator[tuple[bool, str, str]]:
        """Whether a rule is broken, what to say then, and what to do."""
        count, names = len(systems), ", ".join(systems)
        alone = METHODS[self.method][0] in PAIRED and count < 2
        yield alone, f"{self.method} compares systems; {count} is there.", "Give 2 or more."
        strange = self.reference not in (None, *systems)
        yield strange, f"reference={self.reference!r} is not a system.", f"Use one of {names}."
        for name in systems:
            yield not usable(name), f"{name!r} cannot be a system's name.", "Choose another: NAME=FOLDER."
        if self.method == "mushra":
            lone = self.reference is None or count < 2
            yield lone, "mushra needs a reference and a system.", "Name the original's folder by --reference."
            yield count >= MOST_SLOTS, f"{count + 1} signals on a page.", f"Use {MOST_SLOTS} or fewer."
        if "relevance" in METHODS[self.method]:
            for prompt, text in texts.items():
                yield not text, f"{prompt!r} has no caption to judge relevance by.", "Use --captions."
            yield len({*texts.values()}) < 2, "All captions are equal.", "Relevance needs 2 different ones."

    def design(self, systems: dict[str, Path], texts: dict[str, str]) -> Design:
        """The design for prompts with captions, with a tenth of catch trials where no number is asked for."""
        for broken, message, hint in self.rules(systems, texts):
            if broken:
                raise AudioLDMError(message, hint)
        secret = secrets.token_hex(16)
        if self.seed is not None:
            secret = hashlib.sha256(f"audioldm listen {self.seed}".encode()).hexdigest()[:32]
        base = Design(
            self.method, (*systems,), (*texts,), (*texts.values(),), reference=self.reference,
            per_rater=min(self.per_rater, len(texts)), training=self.training, catch=0, secret=secret,
        )  # fmt: skip
        main = sum(trial.kind == "main" for trial in plan(base, 0)) // len(METHODS[self.method])
        return replace(base, catch=max(2, round(main / 10)) if self.catch is None else self.catch)


def usable(name: str) -> bool:
    return bool(name.strip()) and name.isprintable() and ":" not in name and name != ANCHOR


def gather(
    systems: dict[str, Path], captions: Path | None = None
) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """Match the systems' clips by their names without suffix.

    Captions come from ``captions`` (CSV with id and caption), else from beside the clips.
    Gives prompt id -> system -> file, and prompt id -> caption ("" where none is known).
    """
    folders = {name: {one.id: one for one in recordings.from_folder(systems[name])} for name in systems}
    shared = common(folders)
    files = {prompt: {name: folders[name][prompt].path for name in systems} for prompt in shared}
    if captions is not None:
        return files, listed(captions, shared)
    return files, {prompt: agreed([clips[prompt] for clips in folders.values()]) for prompt in shared}


def common(folders: dict[str, dict[str, recordings.Clip]]) -> list[str]:
    """The names of clips, which must be the same in every folder."""
    every = set().union(*folders.values())
    shared = sorted(every.intersection(*folders.values()))
    if len(every) > len(shared):
        prompt = min(every.difference(shared))
        lacking = next(name for name, clips in folders.items() if prompt not in clips)
        what = f"{len(every) - len(shared)} of {len(every)} clips are not in every folder: {lacking} lacks {prompt!r}."
        hint = "Name the clips of one prompt alike, and add what is missing or take it out."
        raise AudioLDMError(what, hint)
    return shared


def listed(captions: Path, prompts: list[str]) -> dict[str, str]:
    if not captions.is_file():
        raise AudioLDMError(f"There is no file {captions}.", "Give a CSV with id,caption.")
    table = recordings.read_captions(captions)
    if missing := [prompt for prompt in prompts if prompt not in table]:
        what = f"{captions} has no caption for {missing[0]!r} ({len(missing)} missing)."
        raise AudioLDMError(what, "Add a line for each clip.")
    return {prompt: table[prompt] for prompt in prompts}


def agreed(clips: list[recordings.Clip]) -> str:
    """The one caption of a prompt's clips, "" where none has any."""
    said = {clip.caption: clip.path for clip in clips if clip.caption}
    if len(said) > 1:
        (one, first), (other, second) = list(said.items())[:2]
        what = f"{first} says {one!r}, {second} says {other!r}."
        raise AudioLDMError(what, "Clips of one name must have one prompt.")
    return next(iter(said), "")


def prepare(
    systems: dict[str, Path],
    out: str | Path,
    choices: Choices,
    *,
    captions: Path | None = None,
    force: bool = False,
) -> Test:
    """Write the test of ``systems`` (name to folder of clips) to the folder ``out``, whole or not at all.

    Raises AudioLDMError for a folder that holds answers, and for clips that do not match, are silent, differ in length.
    """
    out = Path(out)
    check_free(out, force=force)
    sources, texts = gather(systems, captions)
    design = choices.design(systems, texts)
    with staged(out, folder=True, replace=True) as folder:
        (folder / "audio").mkdir()
        clips, shortened = dict[str, dict[str, Any]](), 0
        for prompt, files in counted(sources.items(), "prompts"):
            waves = {name: stimuli.read(path) for name, path in files.items()}
            shortest = check_lengths(prompt, list(map(len, waves.values())), choices)
            shortened += max(map(len, waves.values())) > shortest
            waves = {name: wave[:shortest] for name, wave in waves.items()}
            sounds = {name: stimuli.version(name, waves, design.reference) for name in design.versions()}
            for name, (wave, lufs, gain) in stimuli.level(sounds).items():
                blind = stimuli.blind_name(design.secret, name, prompt)
                clips[blind] = {
                    "version": name, "prompt": prompt, "source": str(files[name]) if name in files else None,
                    "sha256": write(folder / "audio" / blind, wave), "seconds": round(len(wave) / stimuli.RATE, 4),
                    "lufs_before": lufs, "gain_db": gain,
                }  # fmt: skip
        write(folder / "audio" / "volume.wav", stimuli.volume_noise())
        for n in BEEPS:
            write(folder / "audio" / f"beeps{n}.wav", stimuli.beeps(n))
        describe(folder, design, clips, title=choices.title, prompts_cut_to_one_length=shortened)
        check_free(out, force=force)  # it may have got answers meanwhile
    return load(out)


def write(path: Path, wave: stimuli.Wave) -> str:
    """Write a sound, and return its sha256."""
    buffer = io.BytesIO()  # libsndfile does not say that a disk is full
    soundfile.write(buffer, wave, stimuli.RATE, format="WAV", subtype="PCM_16")
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over anything, and over answers always."""
    if (out / RESPONSES).exists():
        raise AudioLDMError(f"{out} holds answers of raters.", "Use another folder, or move it away.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not force:
            raise AudioLDMError(f"{out} exists.", "Use another folder, or --force to make the test anew.")
        if not (out / "test.json").is_file():
            raise AudioLDMError(f"{out} is not a listening test.", "--force replaces only a test.")


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
    """Write test.json."""
    gaps = [clip["lufs_before"] + clip["gain_db"] - stimuli.TARGET_LUFS for clip in clips.values()]
    gaps = [gap for gap in gaps if abs(gap) > 0.5]
    trials = plan(design, 0)
    # every clip once and a half, and 5 s to decide
    mean = float(np.mean([clip["seconds"] for clip in clips.values()]))
    seconds = sum(1.5 * mean * (len(trial.slots) + (trial.reference is not None)) + 5 for trial in trials)
    about = {
        "method": design.method, "systems": len(design.systems), "prompts": len(design.prompts),
        "lufs": stimuli.TARGET_LUFS, "clips": len(clips), "clips_below_target": len(gaps),
        "largest_headroom_db": round(-min(gaps), 2) if gaps else 0.0, "trials_per_rater": len(trials),
        "minutes_per_rater": max(1, round(seconds / 60)), **more,
    }  # fmt: skip
    content = {"format": FORMAT, "about": about, "design": asdict(design), "clips": clips}
    (folder / "test.json").touch(mode=0o600)
    (folder / "test.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
