"""Every sound of the zoo through every door: check, edit, generate, evaluate, training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import soundfile
from harness import Case, Result, called, command
from world import QUICK, TRAIN, World
from zoo import Sound, zoo

REFUSED, TAKEN, EITHER = (1, 2), (0,), (0, 1, 2)
CODES = {"whole": TAKEN, "broken": REFUSED, "odd": EITHER}


def placed(sound: Sound, room: Path) -> Path:
    """The sound's file, in a folder of its own."""
    path = room / "in" / sound.name
    path.parent.mkdir()
    sound.write(path)
    return path


def check(world: World, sound: Sound, room: Path) -> Result:
    """``data check``, whose report must name what is wrong."""
    path = placed(sound, room)
    result = command("data", "check", path.parent, "--report", room / "report.jsonl")
    report = room / "report.jsonl"
    if result.code == 1 and not (report.exists() and report.read_text()):
        return Result(-1, result.out, "no finding says why\n" + result.err)
    return result


def generate(world: World, sound: Sound, room: Path) -> Result:
    """A sound as the prompt."""
    path = placed(sound, room)
    return command("generate", "rain", "-m", world.model, "-o", room / "out", "--audio-prompt", path, *QUICK)


def edit(world: World, sound: Sound, room: Path) -> Result:
    """A variation of the sound; every sixth goes back into the file's own channels and width."""
    path, kind = placed(sound, room), len(sound.name) % 6
    words = ("vary", path) if kind else ("inpaint", path, "rain", "--from", "0.1", "--to", "0.3", "--splice")
    return command(
        "edit", *words, "-m", world.model, "-o", room / "out", "--steps", "2", "--set", "figure=false"
    )


def evaluate(world: World, sound: Sound, room: Path) -> Result:
    """The sound and a whole one of the same rate, against two whole ones."""
    path = placed(sound, room)
    wave, _ = soundfile.read(world.clips / "clip0.wav")
    other = path.with_name("other.wav")
    soundfile.write(other, wave, sound.rate)
    words = ("--unpaired", "--crop", "0.7", "-o", room / "out")
    return command("evaluate", path.parent, world.clips, *words)


def train(world: World, sound: Sound, room: Path) -> Result:
    """The first batch of a training on the sound, from a manifest that nobody checked."""
    from audioldm.spec import AudioSpec
    from audioldm.training.data import from_manifests

    path = placed(sound, room)
    row = {"path": f"in/{path.name}", "captions": ["x"]}
    (room / "m.jsonl").write_text(json.dumps(row) + "\n")

    def first() -> None:
        data = from_manifests(AudioSpec(), manifests=[str(room / "m.jsonl")], seconds=0.32, batch_size=2)
        batch = next(iter(data.train_dataloader()))
        if not batch.wave.isfinite().all():
            raise RuntimeError("a batch is not finite")

    return called(first)


def real_training(world: World, sound: Sound, room: Path) -> Result:
    """``train`` on the sound and three whole ones."""
    path = placed(sound, room)
    for clip in world.clips.glob("*.wav"):
        shutil.copy(clip, path.parent)
    names = [path.name, *(clip.name for clip in sorted(world.clips.glob("*.wav")))]
    (room / "m.jsonl").write_text(
        "".join(json.dumps({"path": f"in/{name}", "captions": ["x"]}) + "\n" for name in names)
    )
    words = ("data=manifests", f"data.manifests=[{room}/m.jsonl]", "batches=3", f"run_dir={room}/run")
    return command("train", "tiny/vae", *TRAIN, *words)


def pass_on(world: World, sound: Sound, room: Path) -> Result:
    """The sound and two whole ones through what writes them on: one bad sound never ends the run over the others."""
    path = placed(sound, room)
    for number in range(2):
        shutil.copy(world.clips / f"clip{number}.wav", path.parent)
    names = [path.name, "clip0.wav", "clip1.wav"]
    (room / "m.jsonl").write_text(
        "".join(json.dumps({"path": f"in/{name}", "captions": ["x"]}) + "\n" for name in names)
    )
    result = command("data", "check", room / "m.jsonl", "-o", room / "clean.jsonl")
    if result.code or (room / "clean.jsonl").read_text().count("\n") < 2:
        return Result(-1, result.out, "the whole sounds were lost\n" + result.err)
    listened = command("data", "listen", room / "clean.jsonl", "-o", room / "page.html")
    return (
        listened if listened.code else command("data", "shard", room / "clean.jsonl", "-o", room / "shards")
    )


Door = Callable[[World, Sound, Path], Result]
DOORS: dict[str, Door] = {
    "check": check,
    "generate": generate,
    "edit": edit,
    "evaluate": evaluate,
    "train": train,
}


FEW = {"check": 1000, "generate": 50, "edit": 50, "evaluate": 50, "train": 1000}
"""sounds at the small size, drawn by the seed for each door"""


def cases(world: World) -> list[Case]:
    """All sounds at all doors; the dear doors only at the large size, or for a few."""
    sounds = zoo(world.seed)

    def case(kind: str, door: Door, sound: Sound, codes: tuple[int, ...]) -> Case:
        return Case(f"sounds: {kind}", sound.name, lambda room: door(world, sound, room), codes)

    out = []
    for kind, door in DOORS.items():
        out += [case(kind, door, sound, CODES[sound.fit]) for sound in world.some(sounds, FEW[kind], kind)]
    out += [case("passed on", pass_on, sound, TAKEN) for sound in world.some(sounds, 8)]
    return out + [case("train command", real_training, sound, EITHER) for sound in world.some(sounds, 2)]
