"""Models, adapters, runs, caches, tests, tables and prompts with one change each, through what reads them."""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Case, Result, called, command
from mutations import mutate
from world import QUICK, RUN, TRAIN, World

Use = Callable[[World, Path, Path], Result]
"""(world, the changed copy, room) -> what came of it"""


@dataclass(frozen=True)
class Target:
    """Something on disk that commands read: where the whole one lies, which files may change, and what reads it."""

    kind: str
    source: Callable[[World], Path]
    uses: tuple[Use, ...]
    few: int
    """cases at the small size; twenty times as many at the large one"""
    files: tuple[str, ...] = ("*",)


def uses(*words: str) -> Use:
    """A command line with {it}, {room}, {model} and {clips} filled in."""

    def use(world: World, it: Path, room: Path) -> Result:
        names = {"it": it, "room": room, "model": world.model, "clips": world.clips}
        return command(*(word.format(**names) for word in words))

    return use


GENERATE = uses("generate", "rain", "-m", "{it}", "-o", "{room}/out", *QUICK)
ADAPTED = uses("generate", "rain", "-m", "{model}", "--adapter", "{it}", "-o", "{room}/out", *QUICK)


def resume(world: World, it: Path, room: Path) -> Result:
    """Type the same training again beside its folder, with more batches."""
    return command(*RUN, "batches=3")


def stream(world: World, it: Path, room: Path) -> Result:
    """Two batches of streamed shards."""
    from itertools import islice

    from audioldm.datasets.shards import Shards
    from audioldm.spec import AudioSpec

    shards = sorted(map(str, it.glob("*.tar")))
    return called(lambda: list(islice(iter(Shards(shards, AudioSpec(), 0.3, batch_size=2, seed=0)), 3)))


def curve(world: World, it: Path, room: Path) -> Result:
    """A curve drawn by hand."""
    from audioldm.control.maps import MapSource
    from audioldm.spec import AudioSpec

    def read() -> None:
        source = MapSource("pitch", it / "curve.csv")
        source.check()
        source.curve(AudioSpec())

    return called(read)


def ldm(world: World, it: Path, room: Path) -> Result:
    """Train on a cache."""
    size = ("task.unet.film_dim=16", "task.unet.latent_channels=4")
    return command(
        "train", "tiny/ldm", *TRAIN, *size, f"data.folder={it}", "batches=1", f"run_dir={room}/run"
    )


TARGETS = (
    Target("models", lambda w: w.model, (GENERATE,), 40),
    Target("adapters", lambda w: w.adapter, (uses("adapter", "show", "{it}"), ADAPTED), 20),
    Target(
        "runs",
        lambda w: w.run,
        (
            resume,
            uses(
                "data",
                "encode",
                "synthetic",
                "-o",
                "{room}/cache",
                "--vae",
                "{it}",
                "--clap",
                "{model}",
                "--seconds",
                "0.64",
            ),
            uses("export", "{model}", "--vae", "{it}", "-o", "{room}/joined"),
        ),
        8,
    ),
    Target("caches", lambda w: w.cache, (ldm,), 10),
    Target(
        "listening tests",
        lambda w: w.test,
        (uses("listen", "analyse", "{it}", "--keep-all", "--resamples", "100", "-o", "{room}/out"),),
        20,
        ("*.json", "*.jsonl", "audio/*.wav"),
    ),
    Target("shards", lambda w: w.shards, (stream,), 30),
    Target(
        "manifests",
        lambda w: w.clips,
        (
            uses("data", "check", "{it}/clips.jsonl", "-o", "{room}/c.jsonl"),
            uses("data", "attribution", "{it}/clips.jsonl", "-o", "{room}/a.md"),
            uses("data", "listen", "{it}/clips.jsonl", "-o", "{room}/l.html", "-n", "1"),
            uses("data", "shard", "{it}/clips.jsonl", "-o", "{room}/shards"),
            uses(
                "evaluate",
                "{clips}",
                "{it}/clips.jsonl",
                "--unpaired",
                "--split",
                "any",
                "-o",
                "{room}/e",
            ),
            uses("evaluate", "protocol", "{it}/clips.jsonl", "-o", "{room}/p.json", "--split", "any"),
            uses(
                "train",
                "tiny/vae",
                *TRAIN,
                "batches=1",
                "data=manifests",
                "data.manifests=[{it}/clips.jsonl]",
                "run_dir={room}/r",
            ),
        ),
        28,
        ("clips.jsonl",),
    ),
    Target(
        "tables",
        lambda w: w.tables,
        (
            uses("data", "prepare", "folder", "{it}", "-o", "{room}/m.jsonl"),
            uses("data", "prepare", "table", "{it}/captions.csv", "--audio", "{it}", "-o", "{room}/m.jsonl"),
            uses(
                "listen",
                "prepare",
                "a={it}",
                "b={clips}",
                "--captions",
                "{it}/captions.csv",
                "-o",
                "{room}/t",
            ),
            uses("evaluate", "{it}", "{clips}", "--unpaired", "-o", "{room}/e"),
            uses("evaluate", "prompts", "{it}/asked.tsv", "--clips", "{it}", "-o", "{room}/e"),
            curve,
        ),
        30,
        ("*.csv", "*.tsv", "*.txt", "clips.jsonl"),
    ),
    Target(
        "prompts",
        lambda w: w.prompts,
        tuple(
            uses(
                "generate", "--prompts", f"{{it}}/p.{kind}", "-m", "{model}", "-o", "{room}/out", "--dry-run"
            )
            for kind in ("csv", "jsonl", "txt", "tsv")
        ),
        40,
    ),
    Target(
        "sidecars",
        lambda w: w.made,
        (
            uses("generate", "--replay", "{it}/rain_seed0.json", "-o", "{room}/out"),
            uses("generate", "rain", "-m", "{model}", "-o", "{it}", "--resume", *QUICK),
            uses(
                "evaluate",
                "{it}",
                "{clips}",
                "--unpaired",
                "--crop",
                "0.5",
                "-o",
                "{room}/e",
            ),
        ),
        9,
    ),
    Target(
        "protocols",
        lambda w: w.protocol,
        (
            uses(
                "evaluate",
                "{clips}",
                "{clips}/clips.jsonl",
                "--protocol",
                "{it}/protocol.json",
                "--split",
                "any",
                "--unpaired",
                "-o",
                "{room}/e",
            ),
        ),
        10,
    ),
)


def forget_hashes(copy: Path) -> None:
    """Let a model be changed without being told apart by its hashes: what it holds is read."""
    path = copy / "audioldm.json"
    with contextlib.suppress(ValueError, OSError, TypeError, AttributeError, RecursionError):
        if path.is_file() and path.stat().st_size < 10**6:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": {}}))


def case(world: World, target: Target, number: int) -> Case:
    """The numbered change of a target; the seed decides what it is."""
    rng = np.random.default_rng([world.seed, number, *target.kind.encode()])
    use = target.uses[number % len(target.uses)]
    whole = target.source(world)
    files = (
        [whole]
        if whole.is_file()
        else sorted(path for name in target.files for path in whole.rglob(name) if path.is_file())
    )
    file = files[rng.integers(len(files))]

    def run(room: Path) -> Result:
        copy = copied(whole, room)
        mutate(copy if whole.is_file() else copy / file.relative_to(whole), rng)
        forget_hashes(copy)
        return use(world, copy, room)

    return Case(target.kind, f"{number} {file.name}", run)


def copied(whole: Path, room: Path) -> Path:
    """A file or a folder in the room of a case."""
    copy = room / whole.name
    (shutil.copy if whole.is_file() else shutil.copytree)(whole, copy)
    return copy


def unchanged(world: World, target: Target, use: Use, number: int) -> Case:
    """What was not changed is taken, or the changes would not reach what reads it."""
    whole = target.source(world)
    return Case(
        target.kind, f"unchanged {number}", lambda room: use(world, copied(whole, room), room), codes=(0,)
    )


def cases(world: World) -> list[Case]:
    """All targets, whole and changed."""
    out = []
    for target in TARGETS:
        out += [unchanged(world, target, use, number) for number, use in enumerate(target.uses)]
        out += [case(world, target, number) for number in range(target.few * (20 if world.large else 1))]
    return out
