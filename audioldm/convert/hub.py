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

from audioldm.convert.checkpoint import TANGO_CONFIG, TANGO_FILES, TANGO_MAIN
from audioldm.convert.folder import ROBERTA, T5, has_tokenizer
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import NAMES, class_name, find_weights, read_json

T = TypeVar("T")
HTTPError: type[Exception] = HfHubHTTPError.__mro__[1]
"""the base class of every failure of the hub's HTTP client, whichever client it uses"""
PARTS = ("unet", "vae", "vocoder", "text_encoder")
MORE = ("text_encoder_2", "projection_model", "language_model")
"""what AudioLDM 2 has besides"""
EXTRACTOR = ("preprocessor_config.json", "processor_config.json")
TOKENIZER = (
    "tokenizer.json", "spiece.model", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
)  # fmt: skip
BESIDE = {
    "text_encoder": ("tokenizer/", "feature_extractor/"),
    "text_encoder_2": ("tokenizer_2/",),
    "": ("",),
}
"""where a component's tokenizer and feature extractor are; "" is a component that is the repository itself"""
TOP = ("model_index.json", "scheduler/scheduler_config.json")


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit of one repository, in the cache."""

    folder: Path
    repo: str
    revision: str


def fetch_model(ref: str) -> Snapshot:
    """All files of a diffusers model, or of Tango, that are needed, and no other.   Raises AudioLDMError."""

    def choose(listed: Sequence[str]) -> list[str]:
        if TANGO_MAIN in listed:
            return list(TANGO_FILES)
        if TOP[0] not in listed:
            raise AudioLDMError(
                f"{ref} has no model_index.json.", "Name a repository of a diffusers model, or of Tango."
            )
        more = [part for part in MORE if f"{part}/config.json" in listed]
        return [*(name for name in TOP if name in listed), *select(listed, [*PARTS, *more])]

    def whole(folder: Path) -> bool:
        if (folder / TANGO_CONFIG).is_file():
            return all((folder / name).is_file() for name in TANGO_FILES)
        two = read_json(folder / TOP[0]).get("_class_name") == "AudioLDM2Pipeline"
        parts = (*PARTS, *MORE) if two else PARTS
        return all((folder / name).is_file() for name in TOP) and all(has_part(folder, p) for p in parts)

    return fetch_chosen(
        ref, (TOP[0], TANGO_CONFIG), choose, whole, f"{', '.join(TOP)} and {', '.join(PARTS)}"
    )


def fetch_part(ref: str, folders: Sequence[str]) -> Snapshot:
    """The files of one part: of these component folders, or of a repository that is the part itself."""

    def choose(listed: Sequence[str]) -> list[str]:
        if TANGO_MAIN in listed:
            return list(TANGO_FILES)
        inside = [folder for folder in folders if f"{folder}/config.json" in listed]
        if not inside and "config.json" not in listed:
            raise AudioLDMError(f"{ref} holds no {folders[0]}.", "Name a repository that has one.")
        return select(listed, inside or [""])

    def whole(folder: Path) -> bool:
        if (folder / TANGO_CONFIG).is_file():
            return all((folder / name).is_file() for name in TANGO_FILES)
        return has_part(folder, folders[0] if (folder / folders[0]).is_dir() else "")

    entries = (f"{folders[0]}/config.json", "config.json", TANGO_CONFIG)
    return fetch_chosen(ref, entries, choose, whole, f"the files of {folders[0]}")


def fetch(repo: str, names: Sequence[str], *, instead: str) -> Snapshot:
    """Some files of a repository; ``instead`` is where else they are looked for."""
    cached = cached_folder(repo, names[0], "main")
    if cached is not None and all((cached / name).is_file() for name in names):
        return Snapshot(cached, repo, cached.name)
    return download(repo, names, revision="main", commit=None, instead=instead)


def fetch_chosen(
    ref: str,
    entries: Sequence[str],
    choose: Callable[[Sequence[str]], list[str]],
    whole: Callable[[Path], bool],
    files: str,
) -> Snapshot:
    """What ``choose`` takes of a repository's files; the cache's, without asking, where it is ``whole``.

    ``entries`` are files of which the cache has one if it has anything, ``files`` what a message says is missing.
    """
    repo, _, revision = ref.partition("@")
    folders = (cached_folder(repo, name, revision or "main") for name in entries)
    cached = next((folder for folder in folders if folder is not None), None)
    if cached is not None and revision != "main" and complete(cached, whole):
        return Snapshot(cached, repo, cached.name)
    wanted = cached.name if cached is not None and revision != "main" else revision or "main"
    instead = "into a folder, and name that folder"
    listed = asking(lambda: HfApi().model_info(repo, revision=wanted), ref, files, instead)
    names = choose([sibling.rfilename for sibling in listed.siblings or []])
    return download(repo, names, revision=wanted, commit=str(listed.sha), instead=instead)


def complete(folder: Path, whole: Callable[[Path], bool]) -> bool:
    """Whether a cached folder has all that is needed; a download may have been interrupted."""
    try:
        return whole(folder)
    except AudioLDMError:
        return False


def has_part(folder: Path, part: str) -> bool:
    """Whether a component is there with its weights, tokenizer and feature extractor.   Raises AudioLDMError."""
    place = folder / part
    if not (place / "config.json").is_file() or not all(path.is_file() for path in find_weights(place)):
        return False
    name = class_name(read_json(place / "config.json"))
    if part not in BESIDE or name not in ("ClapModel", "ClapTextModelWithProjection", "T5EncoderModel"):
        return True
    extractors = [folder / beside / file for beside in BESIDE[part] for file in EXTRACTOR]
    if name == "ClapModel" and not any(path.is_file() for path in extractors):
        return False
    return has_tokenizer(folder / BESIDE[part][0], T5 if name == "T5EncoderModel" else ROBERTA)


def cached_folder(repo: str, name: str, revision: str) -> Path | None:
    """The cache's folder of a commit, if it has ``name``."""
    try:
        path = try_to_load_from_cache(repo, name, revision=revision)
    except HFValidationError as error:
        raise AudioLDMError(f"{repo!r} is no hub id ({error}).", "Name owner/name.") from None
    return Path(path).parents[name.count("/")] if isinstance(path, str) else None


def select(listed: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The files of components: of each the first weight format that is there, safetensors before pickles."""
    names: list[str] = []
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        names += [f"{prefix}{name}" for name in ("config.json", *EXTRACTOR)]
        names += [f"{beside}{name}" for beside in BESIDE.get(folder, ()) for name in (*TOKENIZER, *EXTRACTOR)]
        for name in NAMES:
            stem, suffix = name.rsplit(".", 1)
            index = f"{prefix}{name}.index.json"
            if f"{prefix}{name}" in listed or index in listed:
                shards = [n for n in listed if n.startswith(f"{prefix}{stem}-") and n.endswith(f".{suffix}")]
                names += [f"{prefix}{name}"] if f"{prefix}{name}" in listed else [index, *shards]
                break
    return list(dict.fromkeys(name for name in names if name in set(listed)))


def download(repo: str, names: Sequence[str], *, revision: str, commit: str | None, instead: str) -> Snapshot:
    """Fetch ``names``; the first by ``revision``, which pins it in the cache, the others by the commit."""
    folder: Path | None = None
    for i, name in enumerate(names):
        version = commit if folder is not None and commit else revision
        path = asking(
            lambda name=name, version=version: hf_hub_download(repo, name, revision=version),  # type: ignore[misc]
            repo,
            ", ".join(names[i:]),
            instead,
        )
        folder = Path(path).parents[name.count("/")]
        commit = commit or folder.name
    if folder is None:
        raise AudioLDMError(f"{repo} holds no model.", "Name a repository with model_index.json.")
    return Snapshot(folder, repo, folder.name)


def asking(call: Callable[[], T], ref: str, files: str, instead: str) -> T:
    """``call()`` with every failure of the hub as one line that says which files are missing and where they may be."""
    repo, _, revision = ref.partition("@")
    page = f"{constants.ENDPOINT}/{repo}"
    try:
        return call()
    except RevisionNotFoundError:
        raise AudioLDMError(f"{repo} has no revision {revision!r}.", f"See {page}/commits/main.") from None
    except (RepositoryNotFoundError, RemoteEntryNotFoundError) as error:
        what = str(error).strip().splitlines()[0][:160]
        raise AudioLDMError(
            f"{repo} has no such model or file, or needs a login ({what}).", f"See {page}."
        ) from None
    except (OSError, HTTPError) as error:  # offline, unreachable, cut off, or a full disk
        offline = constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else str(error).strip().splitlines()[0][:160]
        again = "Unset it" if offline else "Run again to resume"
        raise AudioLDMError(
            f"{ref} is not in the cache {constants.HF_HUB_CACHE}, and it cannot be fetched ({reason}).",
            f"{again}, or copy {files} from {page}/tree/main {instead}.",
            code=1,
        ) from None
