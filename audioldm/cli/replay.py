"""``--replay FILE.json``: make the sound of a sidecar again, and say whether it is the same."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli import generate
from audioldm.cli.clips import check_outputs, plan
from audioldm.cli.console import progress, say
from audioldm.cli.edit import EDITS, Edit
from audioldm.cli.options import Between, Group, changed, restored, setting
from audioldm.cli.options.groups import SEEDS, ModelOptions, Output
from audioldm.cli.results import Results, save
from audioldm.errors import AudioLDMError
from audioldm.tables import read_text

if TYPE_CHECKING:
    from audioldm.pipeline.sounds import Sound

PLACE = Path("out/replay")
"""Where it writes unless ``--out`` names another place"""


def replay(request: "generate.Generate", path: Path) -> None:
    """Make the sound of a sidecar of generate or edit again, and say how far it is from the first.

    ``request`` says where it goes, and may say what computes it.   Raises AudioLDMError.
    """
    output, model = request.output, request.model
    if request.prompt is not None or request.prompts.prompts is not None:
        raise AudioLDMError("A prompt and --replay were both given.", "Give one of them.")
    record = read_sidecar(path)
    again = edited if record["command"] in {f"edit {name}" for name in EDITS} else generated
    place = replace(output, out=PLACE if output.out == Path("out") else output.out)
    results = Results(output.as_json)
    for result in again(record, place, model):
        results.add(result)
        compare(path, record, result)
    results.close()


def generated(record: dict[str, Any], output: Output, model: ModelOptions) -> Iterator[dict[str, Any]]:
    """The clip of ``audioldm generate``, in the place of its batch that it had."""
    request = restored(generate.Generate, {**record["options"], **changed(model)})
    prompt = record["prompt"] if record["prompt"] and request.prompts.schedule is None else None
    request = replace(request, prompt=prompt, output=placed(request.output, output))
    generate.check(request)
    rows, spans, title = generate.rows_of(request)
    [group] = plan(
        [replace(rows[0], seed=record["seed"], out=None)], request.prompts, request.output, title=title
    )
    check_outputs([group], request.output)
    if output.dry_run:
        generate.dry_run([group], request)
        return
    session = generate.Session.load(request, request.conditions.check(), spans)
    machine, steps = record["machine"], session.settings_of(group[0])["steps"]
    with threads(machine["threads"]), progress(steps * machine["batch_size"]) as advance:
        wave = session.sample(group * machine["batch_size"], advance)[machine["batch_row"]]
    of_batch = {name: machine[name] for name in ("batch_size", "batch_row")}
    _, wave, about = session.best([(group[0], wave, of_batch)])
    yield save(session.pipe, group[0], wave, about, request.output)


def edited(record: dict[str, Any], output: Output, model: ModelOptions) -> Iterator[dict[str, Any]]:
    """The take of ``audioldm edit``; says which of its inputs have changed since."""
    kind: type[Edit] = EDITS[record["command"].removeprefix("edit ")]
    edit = restored(kind, {**record["options"], **changed(model)})
    how = replace(edit.how, seed=record["seed"], output=placed(edit.how.output, output))
    with threads(record["machine"]["threads"]):
        yield from replace(edit, how=how).results()


def placed(before: Output, now: Output) -> Any:
    """How the first sound was written, where and how this one goes."""
    return replace(
        before, **{name: getattr(now, name) for name in ("out", "force", "figure", "dry_run", "as_json")}
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads as the first sound was made with."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        raise AudioLDMError(
            f"replay={path} is no sidecar of a clip ({reason}).", "Name the .json beside a sound."
        ) from error
    return record | {"seed": machine.seed, "machine": {**record["machine"], **vars(machine)}}


def compare(path: Path, record: dict[str, Any], result: dict[str, Any]) -> None:
    """Say whether the sound of ``result`` is that of ``record``, and what else is different."""
    if result["sound"]["sha256"] == record["sound"]["sha256"]:
        say(f"{path}: the same bytes.")
        return
    from audioldm.pipeline import sounds

    before = path.with_suffix(Path(result["audio"]).suffix)
    try:
        apart = difference(*(sounds.read(place) for place in (Path(result["audio"]), before)))
    except (AudioLDMError, OSError) as error:
        apart = f"{before} cannot be compared ({error})"
    was, now = facts(record), facts(json.loads(json.dumps(result)))
    names = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
    changes = "; ".join(f"{name} was {was.get(name)!r}, is {now.get(name)!r}" for name in names)
    say(f"{path}: other bytes: {apart}. Different: {changes[:800] or 'nothing that is recorded'}.")


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """What may differ between two sidecars of one sound, by dotted names."""
    parts = ("versions", "machine", "settings", "model")
    return {f"{part}.{name}": value for part in parts for name, value in record.get(part, {}).items()}


def difference(sound: "Sound", other: "Sound") -> str:
    """How far two sounds are from each other in steps of 16 bits, in words."""
    import numpy as np

    if sound.data.shape != other.data.shape:
        return f"{len(sound.data)} samples, not {len(other.data)}"
    apart = np.abs(np.rint((sound.floats() - other.floats()) * 2**15))
    most = int(apart.max(initial=0))
    return f"{(apart > 0).mean():.2%} of the samples differ, by at most {most} of 32768"
