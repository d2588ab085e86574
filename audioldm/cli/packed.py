"""``audioldm data prepare`` for tables, WebDataset tars and what the library `datasets` opens."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.manifests import AsJson, Force, Out, Val, finish, refuse_overwrite

Licence = Annotated[str, typer.Option(help="Licence of sounds whose row gives none.")]
Author = Annotated[str, typer.Option(help="Author of sounds whose row gives none.")]
Test = Annotated[float, typer.Option(help="Share of the recordings for testing, chosen by hash.")]
To = Annotated[Path, typer.Option(metavar="DIR", help="Where the sound files go.")]
Column = Annotated[str, typer.Option(help="Name of the column that holds the sound.")]
CaptionColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the column with captions.  [default: caption, text ...]")
]


def table(
    file: Annotated[
        Path, typer.Argument(metavar="CSV|JSONL", help="One sound a line, with a header or keys.")
    ],
    out: Out,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the sounds.  [default: the table's]")
    ] = None,
    licence: Licence = "",
    author: Author = "",
    source: Annotated[str, typer.Option(help="Name of this source.  [default: the table's name]")] = "",
    val: Val = 0.1,
    test: Test = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Any CSV or JSONL with file_name (or path, file) and caption (or captions, text).

    Optional: labels, start, seconds, split, licence, author.

    \b
    Examples:
      audioldm data prepare table clips.csv -o data/raw/clips.jsonl
      audioldm data prepare table clips.jsonl --audio sounds --licence CC0-1.0 -o data/raw/clips.jsonl
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import folder as reader

    rows = reader.listed(
        file,
        audio or file.parent,
        licence=licence,
        author=author,
        source=source or file.stem,
        val=val,
        test=test,
    )
    finish(rows, [], out, as_json)


def webdataset(
    tars: Annotated[
        list[Path], typer.Argument(metavar="TAR...", help="Shards: sounds with .txt or .json beside them.")
    ],
    out: Out,
    to: To = Path("data/raw/webdataset"),
    licence: Licence = "",
    author: Author = "",
    source: Annotated[str, typer.Option(help="Name of this source.")] = "webdataset",
    val: Val = 0.1,
    test: Test = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """WebDataset shards: tars whose members share a name, such as 000.flac and 000.txt or 000.json.

    \b
    Example:
      audioldm data prepare webdataset shards/*.tar --to data/raw/mine -o data/raw/mine.jsonl
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import packed

    rows, findings = packed.unpack(
        packed.webdataset(tars), to, source=source, licence=licence, author=author, val=val, test=test
    )
    finish(rows, findings, out, as_json)


def datasets(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A folder or a data set on the hub.")],
    out: Out,
    to: To = Path("data/raw/datasets"),
    config: Annotated[str, typer.Option(help="The data set's configuration.")] = "",
    audio_column: Column = "audio",
    caption_column: CaptionColumn = "",
    licence: Licence = "",
    author: Author = "",
    val: Val = 0.1,
    test: Test = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Anything that the library `datasets` opens: a saved folder, an audio folder, a repository of the hub.

    \b
    Examples:
      audioldm data prepare datasets saved_folder --to data/raw/mine -o data/raw/mine.jsonl
      audioldm data prepare datasets OWNER/NAME --caption-column description -o data/raw/name.jsonl
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import packed

    columns = (caption_column,) if caption_column else packed.CAPTIONS
    rows, findings = packed.unpack(
        packed.opened(name, config=config or None, column=audio_column),
        to,
        source=Path(name).name,
        licence=licence,
        author=author,
        columns=columns,
        val=val,
        test=test,
    )
    finish(rows, findings, out, as_json)


SOURCES = (table, webdataset, datasets)
