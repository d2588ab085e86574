"""What the readers of published data sets share: tables, sounds found by name, licences, labels as words."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from audioldm.errors import AudioLDMError
from audioldm.paths import inside

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
LICENCE_URLS = (
    (r"publicdomain/zero/(?P<v>[\d.]+)", "CC0-{v}"),
    (r"licenses/sampling\+/(?P<v>[\d.]+)", "CC-Sampling+-{v}"),
    (r"licenses/(?P<k>by(?:-nc)?(?:-sa|-nd)?)/(?P<v>[\d.]+)", "CC-{k}-{v}"),
)


def table(path: str | Path, need: Sequence[str] = ()) -> list[dict[str, str]]:
    """The lines of a CSV or TSV file with a header; a column of ``need`` that is not there is named."""
    path = Path(path)
    if not path.is_file():
        raise AudioLDMError(f"There is no table {path}.", "Is this the data set's own folder?")
    lines = columns(path)
    names = list(lines.fieldnames or [])
    if lost := [name for name in need if name not in names]:
        raise AudioLDMError(f"{path} has no columns {lost}; it has {names}.", "Is this the right file?")
    return [{name: (value or "").strip() for name, value in line.items() if name} for line in lines]


def columns(path: Path) -> "csv.DictReader[str]":
    """The lines of a table by column name.

    The separator (, ; or tab) is the one that the header has most of; files that are no UTF-8 are taken for Latin-1.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    header = text.split("\n", 1)[0]
    lines = csv.DictReader(text.splitlines(keepends=True), delimiter=max(",;\t", key=header.count))
    lines.fieldnames = [name.strip() for name in lines.fieldnames or []]
    return lines


class Sounds:
    """The sound files below some folders, found by file name or by name without its ending."""

    def __init__(self, *folders: str | Path) -> None:
        self.folders = [Path(folder).absolute() for folder in folders]
        for folder in self.folders:
            if not folder.is_dir():
                raise AudioLDMError(f"There is no folder {folder}.", "Name the folder that holds the sounds.")
        self.by_name: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    self.by_name.setdefault(path.name, path)
                    self.by_name.setdefault(path.stem, path)

    def find(self, *names: str) -> Path | None:
        """The first of ``names`` that is there."""
        return next((self.by_name[name] for name in names if name in self.by_name), None)

    def place(self, *names: str) -> str:
        """As ``find``, or where it should have been: the check then names it as missing."""
        found = self.find(*names)
        return str(found if found is not None else inside(self.folders[0], names[0]))


def licence(url: str) -> str:
    """A Creative Commons address as a short name; any other text as it is.

    >>> licence("http://creativecommons.org/licenses/by-nc/3.0/")
    'CC-BY-NC-3.0'
    >>> licence("http://creativecommons.org/publicdomain/zero/1.0/")
    'CC0-1.0'
    """
    for pattern, name in LICENCE_URLS:
        if hit := re.search(pattern, url):
            kind = hit.groupdict().get("k", "").upper()
            return name.format(k=kind, v=hit["v"])
    return url


def words(label: str) -> str:
    """A class name as words: the first of its alternatives, without brackets.

    >>> words("Electric_guitar"), words("Vehicle horn, car horn, honking"), words("Fire (alarm)")
    ('electric guitar', 'vehicle horn', 'fire')
    """
    first = re.sub(r"\([^)]*\)", "", label.replace("_", " ")).split(",")[0]
    return " ".join(first.lower().split())


def listing(parts: Iterable[str]) -> str:
    """Several things in one phrase.

    >>> listing(["wind"]), listing(["wind", "rain"]), listing(["wind", "rain", "thunder"])
    ('wind', 'wind and rain', 'wind, rain and thunder')
    """
    *first, last = list(dict.fromkeys(parts))
    return f"{', '.join(first)} and {last}" if first else last


def texts(line: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """The cells of ``names`` that hold something, each once."""
    return tuple(dict.fromkeys(line[name] for name in names if line.get(name)))
