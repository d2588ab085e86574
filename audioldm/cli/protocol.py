"""``audioldm evaluate protocol``: freeze which clips and captions are scored."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.errors import AudioLDMError


def protocol(
    source: Annotated[Path, typer.Argument(help="A manifest (.jsonl), or AudioCaps' test.csv.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The protocol (.json).")],
    name: Annotated[str, typer.Option(help="Its name.  [default: the file's]")] = "",
    split: Annotated[str, typer.Option(help="Split of the manifest; any takes all rows.")] = "test",
    captions: Annotated[
        str, typer.Option(metavar="first|all|hash", help="Which captions of a clip.")
    ] = "first",
    seconds: Annotated[float | None, typer.Option(help="Length of every clip.  [default: open]")] = None,
    gain: Annotated[str, typer.Option(metavar="peak|none|lufs", help="Level of every clip.")] = "peak",
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write a protocol file: hashes of clips and captions, with a hash of the list, and no caption itself.

    \b
    Examples:
      audioldm evaluate protocol data/raw/esc10.jsonl -o data/protocols/esc10-fold4.json --seconds 5
      audioldm evaluate protocol test.csv -o data/protocols/audiocaps-test.json
    """
    from audioldm.datasets import manifest
    from audioldm.evaluation import protocol as protocols

    if out.exists() and not force:
        raise AudioLDMError(f"{out} exists.", "Use --force, or another name.")
    if source.suffix == ".csv":
        made = protocols.of_audiocaps(source, name=name or out.stem)
    else:
        rows = manifest.read(source, split=None if split == "any" else split)
        about = f"{source.name}, split {split}, caption {captions}"
        made = protocols.of_rows(
            rows, name=name or out.stem, about=about, captions=captions, seconds=seconds, gain=gain
        )
    made.write(out)
    print(f"{out}: {len(made.items)} clips, sha256 {made.sha256}")
