"""``audioldm data attribution``: whom to thank for what a model learned from."""

from pathlib import Path
from typing import Annotated

import typer


def attribution(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests that a model was trained on.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Markdown file; else standard output.")
    ] = None,
) -> None:
    """List the sources, licences and authors of the training rows of manifests, as licences ask for.

    \b
    Example:
      audioldm data attribution data/raw/esc10.jsonl data/raw/opensounds.jsonl -o ATTRIBUTION.md
    """
    from audioldm.datasets.manifest import read

    found: dict[tuple[str, str], dict[str, int]] = {}
    for path in manifests:
        for row in read(path, split="train"):
            authors = found.setdefault((row.source, row.licence), {})
            author = row.author or "unnamed"
            authors[author] = authors.get(author, 0) + 1
    lines = [
        "# Attribution",
        "",
        "Training clips by source and licence; each author with the number of clips.",
        "",
    ]
    for (source, licence), authors in sorted(found.items()):
        lines += [f"## {source}, {licence}: {sum(authors.values())} clips", ""]
        lines += ["; ".join(f"{author} ({count})" for author, count in sorted(authors.items())), ""]
    text = "\n".join(lines)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text)
        typer.echo(str(out))
