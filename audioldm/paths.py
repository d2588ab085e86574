"""Paths that come out of data, and files that appear whole or not at all."""

import errno
import hashlib
import os
import re
import shutil
import stat
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path, PureWindowsPath

from audioldm.errors import AudioLDMError

STAGE = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.part")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_swept: set[Path] = set()
AHEAD = dict[Path, str]()  # digests that nobody asked for yet


def shipped(name: str) -> Path:
    """A folder of the checkout that the package lies in, such as recipes, else its copy inside the package."""
    package = Path(__file__).parent
    checkout = (package.parent / "conf" / "train.yaml").is_file()
    return package.parent / name if checkout else package / f"_{name}"


def cache_folder() -> Path:
    """``audioldm`` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"


def inside(folder: str | Path, name: str, *, where: str | Path = "", links: bool = False) -> Path:
    """``folder / name``, if that lies in ``folder``; ``where`` is the file that holds the name, for the message.

    Raises AudioLDMError for whatever leads out: an absolute path, a drive, ``..``, a link; and for no name at all.
    ``links`` allows the links of a folder of the user's own, for reading.
    """
    root, form = Path(folder).absolute(), PureWindowsPath(name)  # whose parts end at / and at a backslash
    stays = bool(name) and "\0" not in name and {"..", form.anchor}.isdisjoint(form.parts)
    try:
        stays = stays and (links or (root / name).resolve().is_relative_to(root.resolve()))
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no file can have
        stays = False
    if not stays:
        hint = "Remove or correct this entry: only what lies in that folder is read or written."
        raise AudioLDMError(f"{where or folder}: the path {name!r} leads out of {folder}.", hint)
    return root / name


def locate(folder: str | Path, name: str, *, where: str | Path = "", links: bool = False) -> Path:
    """The file in ``folder`` that a table calls ``name``, in any of its ``spellings``; else the plain path."""
    path, *others = (inside(folder, form, where=where, links=links) for form in spellings(name) or [name])
    return next((place for place in (path, *others) if os.path.lexists(place)), path)


def find(name: str) -> Path:
    """The file that a user calls ``name``, wherever it is, in any of its ``spellings``."""
    return next((Path(form) for form in spellings(name) if os.path.lexists(form)), Path(name))


def spellings(name: str) -> list[str]:
    """A file name as it is, with slashes for backslashes, composed and decomposed (NFC, NFD), and in cp1252's bytes."""
    out = list[str]()
    for text in (name, name.replace("\\", "/")):
        out += [text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
        out.append(text.encode("cp1252", "ignore").decode("utf-8", "surrogateescape"))
    return [form for form in dict.fromkeys(out) if form]


@contextmanager
def staged(path: str | Path, *, folder: bool = False, replace: bool = False) -> Iterator[Path]:
    """A new path beside ``path`` to write to (with ``folder`` a new folder); it takes ``path``'s place at the end.

    What was written is on the disk before the name appears.  If the block raises, nothing of it stays and ``path`` is
    as it was.  A folder replaces only an absent or empty one; with ``replace`` any, which stands aside as ``.NAME.old``
    for that instant, and comes back in the next run if this one is killed in it.
    """
    path = Path(path)
    aside, stage = path.with_name(f".{path.name}.old"), stage_of(path)
    if replace:
        restore(aside, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        sweep(path.parent)
        _swept.add(path.parent)
    try:
        if folder:
            stage.mkdir()
        yield stage
        for file in files_in(stage):
            sync(file)
        if replace and path.exists():
            path.replace(aside)
        os.replace(stage, path)
        sync(path.parent)
    except Exception as error:
        code = re.search(r"os error (\d+)", str(error))  # libraries have errors of their own for a full disk
        number = error.errno if isinstance(error, OSError) else int(code[1]) if code else None
        if number not in FULL:
            raise
        hint = "Free some space and run it again; what was there is as it was."
        raise AudioLDMError(f"{path} could not be written: {os.strerror(number)}.", hint, code=1) from error
    finally:
        if replace:
            restore(aside, path)
        discard(stage)


def stage_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")


def restore(aside: Path, path: Path) -> None:
    """Bring back a folder that stands aside, or remove it where its successor is there."""
    if aside.is_dir() and path.exists():
        discard(aside)
    elif aside.is_dir():
        aside.replace(path)


def discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def published(folder: str | Path) -> Iterator[Path]:
    """A new folder to write to; at the end its files are on the disk and take their places in ``folder``.

    An absent or empty one appears at once.   In another file replaces file, those at the top, which describe it, last.
    """
    folder = Path(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        with staged(folder, folder=True) as stage:
            yield stage
        return
    sweep(folder)
    stage = stage_of(folder / "work")
    stage.mkdir()
    try:
        yield stage
        for file in sorted(files_in(stage), key=lambda file: file.parent == stage):
            sync(file)
            target = folder / file.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
            sync(target.parent)
    finally:
        discard(stage)


def sha256(path: str | Path, *, once: bool = False) -> str:
    """Hex digest of a file.   OSError for what has no end (a pipe), or is large and almost all holes."""
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if about.st_size > 2**30 and 16 * 512 * getattr(about, "st_blocks", about.st_size) < about.st_size:
        raise OSError(errno.EINVAL, f"it holds next to nothing of its {about.st_size} bytes", str(path))
    with open(path, "rb") as file:
        if once:  # by one call, during which other threads run
            return hashlib.sha256(mmap(file.fileno(), 0, access=ACCESS_READ)).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(path: Path) -> list[Path]:
    return sorted(file for file in (path, *path.rglob("*")) if file.is_file())


def write_text(path: str | Path, text: str) -> Path:
    """Replace ``path`` by ``text``, in one move; see ``as_bytes``."""
    return write_bytes(path, as_bytes(text))


def write_bytes(path: str | Path, content: bytes) -> Path:
    with staged(path) as stage:
        stage.write_bytes(content)
    return Path(path)


def as_bytes(text: str) -> bytes:
    """A text in UTF-8; what no text can hold (names in broken bytes, halves of a surrogate pair) becomes ``?``."""
    return text.encode("utf-8", "replace")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; where a system cannot, go on."""
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: str | Path) -> list[Path]:
    """Remove what killed runs left of ``staged`` in ``folder``: stages whose process is gone.  Returns their paths."""
    parts = Path(folder).glob(".*.part") if Path(folder).is_dir() else ()
    stale = [p for p in parts if (match := STAGE.fullmatch(p.name)) and not alive(int(match["pid"]))]
    for path in stale:
        discard(path)
    return stale


def alive(pid: int) -> bool:
    if os.name == "nt":  # a signal of 0 would end it there
        return True
    try:
        with suppress(PermissionError):
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    return True
