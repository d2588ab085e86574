"""``audioldm data prepare``: each source of sounds to a checked manifest."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli import packed, public
from audioldm.cli.manifests import AsJson, Force, Out, Val, finish, refuse_overwrite

prepare = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@prepare.callback()
def sources() -> None:
    """Make a manifest from a source; every sound is read and checked.

    Published data sets are read from the files that their authors give out; docs/data.md says where those are.

    \b
    Examples:
      audioldm data prepare esc10 --help
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl
    """


@prepare.command()
def esc10(
    folder: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="The folder with '001 - Dog bark' and so on.")
    ],
    out: Out = Path("data/raw/esc10.jsonl"),
    test_fold: Annotated[int, typer.Option(help="The fold to test on.")] = 4,
    val_fold: Annotated[
        int | None,
        typer.Option(help="The fold to validate on.  [default: --val of the other folds' recordings]"),
    ] = None,
    val: Val = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """ESC-10 (CC BY 3.0): 10 classes, 5 s each, several captions per class.

    \b
    Examples:
      audioldm data prepare esc10 --from ESC-10 -o data/raw/esc10.jsonl
      audioldm data prepare esc10 --from ESC-10 --test-fold 5 --val-fold 4
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import esc10 as source

    finish(source.rows(folder, test_fold=test_fold, val_fold=val_fold, val=val), [], out, as_json)


@prepare.command()
def folder(
    sounds: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; its subfolders count.")],
    out: Out,
    licence: Annotated[str, typer.Option(help="Licence of sounds whose metadata gives none.")] = "",
    author: Annotated[str, typer.Option(help="Author of sounds whose metadata gives none.")] = "",
    source: Annotated[str, typer.Option(help="Name of this source.  [default: the folder's name]")] = "",
    val: Val = 0.1,
    test: Annotated[float, typer.Option(help="Share of the files for testing, chosen by hash.")] = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Any folder of sounds.

    Captions come from metadata.csv or metadata.jsonl in DIR (file_name, caption; also labels, start, seconds,
    split, licence, author) or the one table there with such columns, else from NAME.txt beside NAME.wav (one
    caption a line), else from the file name.

    \b
    Examples:
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --licence CC0-1.0 --author me
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --val 0.2 --test 0
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import folder as reader

    finish(
        reader.rows(sounds, licence=licence, author=author, source=source, val=val, test=test),
        [],
        out,
        as_json,
    )


for command in (*public.SOURCES, *packed.SOURCES):
    prepare.command()(command)
