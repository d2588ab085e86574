"""``audioldm data shard``: a manifest's clips into tars that training streams."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.errors import AudioLDMError


def shard(
    manifest: Annotated[Path, typer.Argument(help="Manifest made by `audioldm data prepare`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the shards.")],
    clips: Annotated[int, typer.Option(help="Clips a shard; each reader needs a shard of its own.")] = 1000,
    split: Annotated[str, typer.Option(help="Rows of this split.")] = "train",
    force: Annotated[bool, typer.Option("--force", help="Replace the shards that the folder holds.")] = False,
) -> None:
    """Write WebDataset shards (KEY.flac, KEY.txt, KEY.json) for `audioldm train RECIPE data=shards`.

    \b
    Example:
      audioldm data shard data/raw/audiocaps.jsonl -o data/shards/audiocaps
      audioldm train audiocaps/vae data=shards "data.shards=[data/shards/audiocaps/*.tar]"
    """
    from audioldm.datasets.manifest import read
    from audioldm.datasets.shards import write_shards

    if clips < 1:
        raise AudioLDMError(f"clips={clips} is not a number of clips.", "Use 1 or more.")
    if any(out.glob("*.tar")) and not force:
        raise AudioLDMError(f"{out} holds shards already.", "Pass --force to replace them.")
    rows = read(manifest, split=split)
    if not rows:
        raise AudioLDMError(f"{manifest} has no row of split {split!r}.", "Choose another --split.")
    typer.echo(f"{out}: {len(write_shards(rows, out, clips=clips))} shards, {len(rows)} clips")
