"""Models of the hub: ``owner/name`` is the commit in the cache, else the newest; ``@main`` the newest; ``@COMMIT``."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, errors, snapshot_download, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from audioldm.convert.checkpoint import TANGO_FILES, TANGO_MAIN
from audioldm.convert.folder import EXTRACTORS
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import STEMS

HTTPError: type[Exception] = errors.HfHubHTTPError.__mro__[1]
"""the base class of every failure of the hub's HTTP client, whichever client it uses"""
PARTS = ("unet", "vae", "vocoder", "text_encoder")
MORE = ("text_encoder_2", "projection_model", "language_model")  # what AudioLDM 2 has besides
TOKENIZER = (
    "tokenizer.json", "spiece.model", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
)  # fmt: skip
BESIDE = {"": [""], "text_encoder": ["tokenizer/", "feature_extractor/"], "text_encoder_2": ["tokenizer_2/"]}
"""where a component's tokenizer and feature extractor are; "" is a component that is the repository itself"""
Names = Sequence[str]
TOP = ("model_index.json", "scheduler/scheduler_config.json")


class Snapshot(NamedTuple):
    """Files of one commit of one repository, in the cache."""

    folder: Path
    repo: str
    revision: str


def fetch_model(ref: str) -> Snapshot:
    """All files of a diffusers model, or of Tango, that are needed, and no other.   Raises AudioLDMError."""
    what = f"{', '.join(TOP)} and {', '.join(PARTS)}"
    return fetch_parts(ref, (*PARTS, *MORE), TOP, what=what, needed=(TOP[0], TANGO_MAIN))


def fetch_part(ref: str, folders: Names) -> Snapshot:
    """The files of one part: of these component folders, or of a repository that is the part itself."""
    needed = (f"{folders[0]}/config.json", "config.json", TANGO_MAIN)
    what = f"the files of {folders[0]}, or all where it has no folders,"
    return fetch_parts(ref, (*folders, ""), (), what=what, needed=needed)


def fetch_parts(ref: str, parts: Names, names: Names, *, what: str, needed: Names) -> Snapshot:
    """Components, and Tango's files if it is one; pickles where there are no safetensors.   Raises AudioLDMError."""
    snapshot = fetch_files(ref, (*names, *TANGO_FILES, *patterns(parts, ".safetensors")), what=what)
    folders = {part: snapshot.folder / part for part in parts}
    there = [part for part, folder in folders.items() if (folder / "config.json").is_file()]
    if bare := [part for part in there if not any(folders[part].glob("*.safetensors"))]:
        snapshot = fetch_files(f"{snapshot.repo}@{snapshot.revision}", patterns(bare, ".bin"), what=what)
    if not any((snapshot.folder / place).is_file() for place in needed):
        raise AudioLDMError(f"{ref} has no {needed[0]}.", "Name a repository that has one.")
    return snapshot


def patterns(parts: Sequence[str], suffix: str) -> list[str]:
    """Components' configurations, tokenizers, feature extractors, and weights of one kind, whole or in shards."""
    ends = (suffix, f"{suffix}.index.json", f"-*-of-*{suffix}")
    weights = [f"{stem}{end}" for stem in STEMS for end in ends]
    files = [(f"{part}/".lstrip("/"), ("config.json", *EXTRACTORS, *weights)) for part in parts]
    beside = [(place, (*TOKENIZER, *EXTRACTORS)) for part in parts for place in BESIDE.get(part, ())]
    return [home + name for home, names in (*files, *beside) for name in names]


def pinned(repo: str) -> str | None:
    """The commit of the cache's main branch, if it is there."""
    main = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "refs", "main")
    return main.read_text(encoding="utf-8").strip() or None if main.is_file() else None


def cached(ref: str) -> Path | None:
    """A path that is there, or a model's folder in the cache; None where neither is."""
    if Path(ref).exists():
        return Path(ref)
    repo, _, revision = ref.partition("@")
    with suppress(errors.HFValidationError):
        file = try_to_load_from_cache(repo, TOP[0], revision=revision or None)
        return Path(file).parent if isinstance(file, str) else None
    return None


def fetch_files(
    ref: str, patterns: Sequence[str], *, what: str, instead: str = "into a folder, and name that folder"
) -> Snapshot:
    """The files that match, without asking where the cache has them; ``what`` is their name in an AudioLDMError."""
    repo, _, revision = ref.partition("@")
    download = partial(snapshot_download, allow_patterns=list(patterns))
    page, again = f"{constants.ENDPOINT}/{repo}", "Run again to resume"
    try:
        commit = revision or pinned(repo)
        if revision != "main":
            with suppress(errors.LocalEntryNotFoundError):
                local = Path(download(repo, revision=commit, local_files_only=True))
                return Snapshot(local, repo, local.name)
        folder = Path(download(repo, revision=commit))
    except errors.HFValidationError as error:
        raise AudioLDMError(f"{repo!r} is no hub id ({error}).", "Name owner/name.") from None
    except errors.RevisionNotFoundError:
        raise AudioLDMError(f"{repo} has no revision {commit!r}.", f"See {page}/commits/main.") from None
    except (OSError, HTTPError) as error:  # offline, unreachable, cut off, or a full disk
        line = str(error).strip().splitlines()[0][:160]
        if isinstance(error, errors.RepositoryNotFoundError):
            missing = f"{repo} has no such model or needs a login ({line})."
            raise AudioLDMError(missing, f"See {page}.") from None
        if constants.HF_HUB_OFFLINE:
            line, again = "HF_HUB_OFFLINE is set", "Unset it"
        where = f"{ref} is not in the cache {constants.HF_HUB_CACHE}, and it cannot be fetched ({line})."
        hint = f"{again}, or copy {what} from {page}/tree/main {instead}."
        raise AudioLDMError(where, hint, code=1) from None
    return Snapshot(folder, repo, folder.name)
