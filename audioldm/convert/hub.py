"""Models of the Hugging Face hub: fetched once, resumed when interrupted, pinned to the commit that was fetched.

``owner/name`` is the commit that the cache holds, else the newest one, which is then kept; ``owner/name@main`` looks
for a newer one; ``owner/name@COMMIT`` is that one.   Progress bars, resuming and the cache are huggingface_hub's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from audioldm.convert import tango
from audioldm.convert.folder import NAMES, find_weights, load_any_tokenizer, load_t5_tokenizer
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import read_json

T = TypeVar("T")
HTTPError: type[Exception] = HfHubHTTPError.__mro__[1]
"""The base class of every failure of the hub's HTTP client, whichever client it uses."""
PARTS = ("unet", "vae", "vocoder", "text_encoder")
MORE = ("text_encoder_2", "projection_model", "language_model")
EXTRACTOR = ("feature_extractor/preprocessor_config.json",)
"""What AudioLDM 2 has besides."""
TOKENIZER = (
    "tokenizer.json",
    "spiece.model",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit of one repository, in the cache."""

    folder: Path
    repo: str
    revision: str


def fetch_model(ref: str) -> Snapshot:
    """All files of a diffusers model that are needed, and no other.   AudioLDMError where that cannot be."""
    repo, _, revision = ref.partition("@")
    instead = "into a folder, and name that folder with -m"
    entries = (cached_folder(repo, name, revision or "main") for name in ("model_index.json", tango.CONFIG))
    cached = next((folder for folder in entries if folder is not None), None)
    if cached is not None and revision != "main" and is_whole(cached):
        return Snapshot(cached, repo, cached.name)
    wanted = cached.name if cached is not None and revision != "main" else revision or "main"
    listed = asking(
        lambda: HfApi().model_info(repo, revision=wanted),
        repo,
        f"{', '.join(weightless(PARTS))}, the tokenizer's files and the weights of {', '.join(PARTS)}",
        instead,
    )
    there = [sibling.rfilename for sibling in listed.siblings or []]
    if "model_index.json" not in there and tango.MAIN not in there:
        raise AudioLDMError(
            f"{repo} has no model_index.json.", "Name a repository of a diffusers model, or of Tango."
        )
    names = list(tango.FILES) if tango.MAIN in there else choose(there)
    return download(repo, names, revision=wanted, commit=str(listed.sha), instead=instead)


def fetch(repo: str, names: Sequence[str], *, instead: Path) -> Snapshot:
    """Some files of a repository; ``instead`` is where else they are looked for."""
    cached = cached_folder(repo, names[0], "main")
    if cached is not None and all((cached / name).is_file() for name in names):
        return Snapshot(cached, repo, cached.name)
    return download(repo, names, revision="main", commit=None, instead=f"into {instead}")


def cached_folder(repo: str, name: str, revision: str) -> Path | None:
    """The cache's folder of a commit, if it has ``name``."""
    try:
        found = try_to_load_from_cache(repo, name, revision=revision)
    except HFValidationError as error:
        raise AudioLDMError(f"{repo!r} is no hub id ({error}).", "Name owner/name.") from None
    return Path(found).parents[name.count("/")] if isinstance(found, str) else None


def is_whole(folder: Path) -> bool:
    """Whether every part is there; a download may have been interrupted."""
    if (folder / tango.CONFIG).is_file():
        return all((folder / name).is_file() for name in tango.FILES)
    try:
        two = read_json(folder / "model_index.json").get("_class_name") == "AudioLDM2Pipeline"
        parts = (*PARTS, *MORE) if two else PARTS
        for part in parts:
            if not all(path.is_file() for path in find_weights(folder / part)):
                return False
        load_any_tokenizer(folder / "tokenizer")
        if two:
            load_t5_tokenizer(folder / "tokenizer_2")
    except AudioLDMError:
        return False
    return all((folder / name).is_file() for name in (*weightless(parts), *(EXTRACTOR if two else ())))


def weightless(parts: Sequence[str]) -> list[str]:
    """The files beside the weights."""
    return ["model_index.json", "scheduler/scheduler_config.json", *(f"{part}/config.json" for part in parts)]


def choose(listed: Sequence[str]) -> list[str]:
    """The files to fetch: of each part the first weight format that is there, safetensors before pickles."""
    here = set(listed)
    parts = [part for part in (*PARTS, *MORE) if part in PARTS or f"{part}/config.json" in here]
    wanted = [f"{place}/{name}" for place in ("tokenizer", "tokenizer_2") for name in TOKENIZER]
    chosen = [name for name in (*weightless(parts), *EXTRACTOR, *wanted) if name in here]
    for part in parts:
        for name in NAMES:
            stem, suffix = name.rsplit(".", 1)
            shards = [f for f in listed if f.startswith(f"{part}/{stem}-") and f.endswith(f".{suffix}")]
            if f"{part}/{name}" in here:
                chosen.append(f"{part}/{name}")
                break
            if f"{part}/{name}.index.json" in here:
                chosen += [f"{part}/{name}.index.json", *shards]
                break
    return chosen


def download(repo: str, names: Sequence[str], *, revision: str, commit: str | None, instead: str) -> Snapshot:
    """Fetch ``names``; the first by ``revision``, which pins it in the cache, the others by the commit."""
    folder: Path | None = None
    for name in names:
        version = commit if folder is not None and commit else revision
        path = asking(
            lambda name=name, version=version: hf_hub_download(repo, name, revision=version),  # type: ignore[misc]
            repo,
            ", ".join(names[names.index(name) :]),
            instead,
        )
        folder = Path(path).parents[name.count("/")]
        commit = commit or folder.name
    if folder is None:
        raise AudioLDMError(f"{repo} holds no model.", "Name a repository with model_index.json.")
    return Snapshot(folder, repo, folder.name)


def asking(call: Callable[[], T], repo: str, files: str, instead: str) -> T:
    """``call()`` with every failure of the hub as one line that says which files are missing and where they may be."""
    page = f"{constants.ENDPOINT}/{repo}"
    try:
        return call()
    except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError) as error:
        what = str(error).strip().splitlines()[0][:160]
        raise AudioLDMError(
            f"{repo} has no such model, revision or file, or needs a login ({what}).", f"See {page}."
        ) from None
    except (OSError, HTTPError) as error:  # offline, unreachable, cut off, or a full disk
        offline = constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else str(error).strip().splitlines()[0][:160]
        again = "Unset it" if offline else "Run again to resume"
        raise AudioLDMError(
            f"{repo} is not in the cache {constants.HF_HUB_CACHE}, and it cannot be fetched ({reason}).",
            f"{again}, or copy {files} from {page}/tree/main {instead}.",
            code=1,
        ) from None
