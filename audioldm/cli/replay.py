"""``--replay FILE.json``: make the sound of a sidecar again, and say whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.cli.console import progress, say
from audioldm.cli.edit import EDITS, Edit
from audioldm.cli.generate import Generate, Session
from audioldm.cli.options import Between, Group, changed, restored, setting
from audioldm.cli.options.groups import SEEDS
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.tables import read_text

with later():
    import numpy as np
    import torch

    from audioldm.pipeline import sounds

PLACE = Path("out/replay")
"""Where it writes unless ``--out`` names another place"""


class Machine(Group):
    """What of a sidecar, beside its options, decides the bytes."""

    seed: int = setting(0, "", SEEDS)
    threads: int = setting(1, "", Between(1, 1024))
    batch_size: int = setting(1, "", Between(1, 4096))
    batch_row: int = setting(0, "", Between(0, 4095))


def replay(request: Generate, path: Path) -> Iterator[dict[str, Any]]:
    """Make the sound of a sidecar of generate or edit again, and say how far it is from the first.

    ``request`` says where it goes, and may say what computes it.   Raises AudioLDMError.
    """
    if request.prompt is not None or request.prompts.prompts is not None:
        raise AudioLDMError("A prompt and --replay were both given.", "Give one of them.")
    record, machine = read_sidecar(path)
    options = {**record["options"], **changed(request.model)}
    kind: type[Generate | Edit] = EDITS.get(record["command"].removeprefix("edit "), Generate)
    again = restored(kind, options)
    out = PLACE if request.output.out == Path("out") else request.output.out
    before = {name: getattr(again.output, name) for name in ("audio_format", "normalize", "lufs")}
    again = replace(again, output=replace(request.output, out=out, replay=None, **before))
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        if isinstance(again, Edit):
            results = replace(again, takes=replace(again.takes, seed=machine.seed)).results()
        else:
            prompts = replace(again.prompts, seed=machine.seed)
            prompt = (record["prompt"] or None) if prompts.schedule is None else None
            results = generated(replace(again, prompt=prompt, prompts=prompts), machine)
        for result in results:
            yield result
            compare(path, record, result)
    finally:
        torch.set_num_threads(threads)


def generated(request: Generate, machine: Machine) -> Iterator[dict[str, Any]]:
    """The clip of ``audioldm generate``, in the place of its batch that it had."""
    groups, spans, maps = request.planned()
    if request.output.dry_run:
        request.show_groups(groups)
        return
    session, [[clip]], size = Session(request, spans, maps), groups, machine.batch_size
    with progress(session.settings_of(clip)["steps"] * size) as advance:
        wave = session.sample([clip] * size, advance)[machine.batch_row]
    yield session.save([(clip, wave, {"batch_size": size, "batch_row": machine.batch_row})])


def read_sidecar(path: Path) -> tuple[dict[str, Any], Machine]:
    """A sidecar and what of it decides the bytes.   Raises AudioLDMError where it has not all that a replay needs."""
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
    return record, machine


def compare(path: Path, record: dict[str, Any], result: dict[str, Any]) -> None:
    """Say whether the sound of ``result`` is that of ``record``, and what else is different."""
    if result["sound"]["sha256"] == record["sound"]["sha256"]:
        say(f"{path}: the same bytes.")
        return
    place = path.with_suffix(Path(result["audio"]).suffix)
    try:
        now, before = sounds.read(result["audio"]).floats(), sounds.read(place).floats()
        how = f"{len(now)} samples, not {len(before)}"
        if now.shape == before.shape:
            apart = np.abs(np.rint((now - before) * 2**15))
            share, most = (apart > 0).mean(), int(apart.max(initial=0))
            how = f"{share:.2%} of the samples differ, by at most {most} of 32768"
    except (AudioLDMError, OSError) as error:
        how = f"{place} cannot be compared ({error})"
    changes = []
    for part in ("versions", "machine", "settings", "model"):
        old, new = record.get(part, {}), json.loads(json.dumps(result[part]))
        for name in sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
            changes.append(f"{part}.{name} was {old.get(name)!r}, is {new.get(name)!r}")
    listed = "; ".join(changes)[:800] or "nothing that is recorded"
    say(f"{path}: other bytes: {how}. Different: {listed}.")
