"""``--replay FILE.json``: make the sound of a sidecar again, and say whether it is the same."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.cli.console import progress, say
from audioldm.cli.edit import EDITS, Edit
from audioldm.cli.generate import Generate
from audioldm.cli.options import Between, Group, changed, restored, setting
from audioldm.cli.options.groups import SEEDS
from audioldm.cli.results import Making
from audioldm.errors import AudioLDMError
from audioldm.tables import read_text

PLACE = Path("out/replay")
"""Where it writes unless ``--out`` names another place"""
EARLIER = ("audio_format", "normalize", "lufs")
"""of the options of output, those that are as they were"""


def replay(request: Generate, path: Path) -> Iterator[dict[str, Any]]:
    """Make the sound of a sidecar of generate or edit again, and say how far it is from the first.

    ``request`` says where it goes, and may say what computes it.   Raises AudioLDMError.
    """
    if request.prompt is not None or request.prompts.prompts is not None:
        raise AudioLDMError("A prompt and --replay were both given.", "Give one of them.")
    record = read_sidecar(path)
    kind = EDITS.get(record["command"].removeprefix("edit "))
    again: Making = restored(kind or Generate, {**record["options"], **changed(request.model)})
    out = PLACE if request.output.out == Path("out") else request.output.out
    before = {name: getattr(again.output, name) for name in EARLIER}
    again = replace(again, output=replace(request.output, out=out, replay=None, **before))
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(record["machine"]["threads"])
    try:
        if isinstance(again, Edit):
            results = replace(again, takes=replace(again.takes, seed=record["seed"])).results()
        else:
            assert isinstance(again, Generate)
            results = generated(again, record)
        for result in results:
            yield result
            compare(path, record, result)
    finally:
        torch.set_num_threads(threads)


def generated(request: Generate, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The clip of ``audioldm generate``, in the place of its batch that it had."""
    prompts = replace(request.prompts, seed=record["seed"])
    prompt = (record["prompt"] or None) if prompts.schedule is None else None
    request = replace(request, prompt=prompt, prompts=prompts)
    request.check()
    groups, load = request.prepared()
    if request.output.dry_run:
        request.show_groups(groups)
        return
    session, [group] = load(), groups
    place = {name: record["machine"][name] for name in ("batch_size", "batch_row")}
    size, steps = place["batch_size"], session.settings_of(group[0])["steps"]
    with progress(steps * size) as advance:
        wave = session.sample(group * size, advance)[place["batch_row"]]
    yield session.save([(group[0], wave, place)])


class Machine(Group):
    """What of a sidecar, beside its options, decides the bytes."""

    seed: int = setting(0, "", SEEDS)
    threads: int = setting(1, "", Between(1, 1024))
    batch_size: int = setting(1, "", Between(1, 4096))
    batch_row: int = setting(0, "", Between(0, 4095))


def read_sidecar(path: Path) -> dict[str, Any]:
    """A sidecar with all that a replay needs.   Raises AudioLDMError."""
    try:
        record: dict[str, Any] = json.loads(read_text(path))
        about = {name: record["machine"][name] for name in ("threads", "batch_size", "batch_row")}
        machine = restored(Machine, {**about, "seed": record["seed"]})
        texts = (record["prompt"], record["sound"]["sha256"], record["command"])
        if not isinstance(record["options"], dict) or set(map(type, texts)) != {str}:
            raise ValueError("a value of another type")
        if machine.batch_row >= machine.batch_size:
            raise ValueError("a batch without its row")
    except (AudioLDMError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        what = f"replay={path} is no sidecar of a clip ({reason})."
        raise AudioLDMError(what, "Name the .json beside a sound.") from error
    return record


def compare(path: Path, record: dict[str, Any], result: dict[str, Any]) -> None:
    """Say whether the sound of ``result`` is that of ``record``, and what else is different."""
    import numpy as np

    from audioldm.pipeline import sounds

    if result["sound"]["sha256"] == record["sound"]["sha256"]:
        say(f"{path}: the same bytes.")
        return
    place = path.with_suffix(Path(result["audio"]).suffix)
    try:
        now, before = sounds.read(result["audio"]), sounds.read(place)
        if now.data.shape == before.data.shape:
            apart = np.abs(np.rint((now.floats() - before.floats()) * 2**15))
            share, most = (apart > 0).mean(), int(apart.max(initial=0))
            how = f"{share:.2%} of the samples differ, by at most {most} of 32768"
        else:
            how = f"{len(now.data)} samples, not {len(before.data)}"
    except (AudioLDMError, OSError) as error:
        how = f"{place} cannot be compared ({error})"
    changes = []
    for part in ("versions", "machine", "settings", "model"):
        old, new = record.get(part, {}), json.loads(json.dumps(result[part]))
        for name in sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
            changes.append(f"{part}.{name} was {old.get(name)!r}, is {new.get(name)!r}")
    listed = "; ".join(changes)[:800] or "nothing that is recorded"
    say(f"{path}: other bytes: {how}. Different: {listed}.")
