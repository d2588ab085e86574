"""``audioldm evaluate embedders``: what can listen here, and what each needs."""

import json
from typing import Annotated

import typer


def embedders(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """List the embedders: ready with the hash of their weights, or what to get and where to put it.

    \b
    Examples:
      audioldm evaluate embedders
      audioldm evaluate embedders --json
    """
    from audioldm.errors import AudioLDMError
    from audioldm.evaluation.embedders.registry import EMBEDDERS, load_embedder

    found = {}
    for name in EMBEDDERS:
        try:
            judge = load_embedder(name)
        except AudioLDMError as error:
            found[name] = {"ready": False, "needs": str(error)}
        else:
            found[name] = {"ready": True, "sha256": judge.sha256, "rate": judge.rate, "dim": judge.dim}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, told in found.items():
        state = f"ready, sha256 {told['sha256']}" if told["ready"] else told["needs"]
        print(f"{name:<16} {state}")
