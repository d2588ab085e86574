"""Adapters on a whole model: which files, how strongly, and the way back to the model itself."""

import json
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from audioldm.adapters.adapter import Adapted, Adapter, check_fit, merge, unmerge
from audioldm.adapters.files import read
from audioldm.adapters.words import Words, merge_words, unmerge_words
from audioldm.components import Components, Sampling
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.clap import NoClap
from audioldm.paths import sha256
from audioldm.ranges import weighted

Named = str | Path | tuple[str | Path, float]  # FILE[:WEIGHT], or a file and its weight
SHIPPED = Path(__file__).parents[1] / "_embedded" / "adapters"  # shield is SHIPPED/shield.safetensors


def parse(named: Named) -> tuple[Path, float]:
    """The file and the weight behind its last colon, 1 if there is none.

    >>> parse("mine.safetensors:0.8"), parse(("mine.safetensors", 2)), parse("C:/mine.safetensors")[1]
    ((PosixPath('mine.safetensors'), 0.8), (PosixPath('mine.safetensors'), 2.0), 1.0)
    """
    if isinstance(named, tuple):
        return Path(named[0]), float(named[1])
    name, weights = weighted(str(named), "adapter", [1.0])
    return Path(name), weights[0]


def file_of(place: Path) -> Path:
    """``place``, or the adapter that comes with the model where ``place`` is only its name."""
    shipped = SHIPPED / f"{place.name}.safetensors"
    return shipped if str(place) == place.name and shipped.is_file() and not place.exists() else place


def adapt(parts: Components, named: Sequence[Named]) -> None:
    """Run ``parts`` with these adapters and no others; every weight becomes W + sum of weight * delta(W).

    They are merged; none at all is the model itself again, bit for bit.   A student's file says how it is sampled.
    Warns of other base weights.   Raises AudioLDMError where one does not fit; the pipeline is then without adapters.
    """
    release(parts)
    if not named:
        return
    applied, sampling = list[dict[str, Any]](), dict[str, Any]()
    words, changes = list[Words](), list[tuple[Adapter, float]]()
    for place, weight in map(parse, named):
        path = file_of(place)
        one = read(path, parts.unet)
        check_base(parts, str(path), one, weight)
        try:
            sampling |= json.loads(one.about.get("sampling", "{}"))  # the last one counts
            Sampling().merged(**sampling)
        except (ValueError, TypeError, AudioLDMError) as error:
            raise AudioLDMError(f"{path}: its sampling cannot be read ({error}).", "Copy it again.") from None
        about = {"file": str(place), "sha256": sha256(path), "kind": one.kind, "weight": weight}
        if isinstance(one, Words):
            words.append(one)
            applied.append({**about, "rank": len(one.rows), "word": one.word})
        else:
            changes.append((one, weight))
            applied.append({**about, "rank": one.rank})
    check_fit(parts.unet, changes)
    defaults = {name: getattr(parts.defaults, name) for name in sampling}
    vocabulary = merge_words(parts.clap, words) if words else None
    parts.engine.adapted = Adapted(applied, merge(parts.unet, changes), vocabulary, defaults)
    object.__setattr__(parts, "defaults", parts.defaults.merged(**sampling))
    parts.engine.reset()


def release(parts: Components) -> None:
    """The model itself again."""
    if (adapted := parts.adapted) is not None:
        unmerge(parts.unet, adapted.weights)
        if adapted.vocabulary is not None:
            unmerge_words(parts.clap, adapted.vocabulary)
        object.__setattr__(parts, "defaults", parts.defaults.merged(**adapted.sampling))
        parts.engine.adapted = None
        parts.engine.reset()


def check_base(parts: Components, file: str, adapter: Adapter | Words, weight: float) -> None:
    """Refuse what cannot be, and warn where the adapter was trained on other weights than the pipeline's."""
    if isinstance(adapter, Words):
        if weight != 1:
            raise AudioLDMError(f"adapter={file}:{weight:g}: a word has no weight.", f"Leave it out: {file}.")
        if isinstance(parts.clap, NoClap):
            why = f"adapter={file} is a word of CLAP, and {parts.name} has no CLAP."
            raise AudioLDMError(why, "Leave it out.")
    warn = partial(warnings.warn, category=AudioLDMWarning, stacklevel=4)
    if adapter.base and not adapter.base.keys() & parts.hashes.keys():
        warn(f"{file} does not say whether it was trained on {parts.name}.")
    for part, digest in adapter.base.items():
        if (known := parts.hashes.get(part, digest)) != digest:
            other = f"another {part} ({digest[:12]}...) than that of {parts.name} ({known[:12]}...)"
            warn(f"{file} was trained on {other}; it may sound wrong.")
