"""``audioldm samplers``: what ``--sampler``, ``--grid`` and ``--guidance-method`` may name."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from audioldm.diffusion.table import Entry


def samplers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List samplers, grids of noise levels and guidance methods: name, options, one line, paper.

    Options are written behind the name, as in --sampler ddim:eta=1 or --grid karras:rho=5.

    \b
    Examples:
      audioldm samplers
      audioldm samplers --json
      audioldm generate "rain" --sampler vp_sde:rounds=2,size=0.1 --grid karras
    """
    from audioldm.diffusion.grids import GRIDS
    from audioldm.diffusion.guidance import GUIDANCE
    from audioldm.diffusion.samplers import SAMPLERS
    from audioldm.pipeline.guidance import METHODS

    flags = {
        "negative": "--negative TEXT", "compose": "--guidance-also TEXT:WEIGHT",
        "interval": "--guidance-interval LOW HIGH", "autoguidance": "--guidance-weak FOLDER",
        "dynamic_threshold": "--guidance-threshold QUANTILE FLOOR", "reward": "--guidance-clap STRENGTH",
        "classifier": "--guidance-classifier FOLDER --guidance-class NAME",
    }  # fmt: skip
    tables = {
        "samplers   --sampler NAME[:OPTION=N,...]   calls: of the network, per step": SAMPLERS,
        "grids   --grid NAME[:OPTION=N,...]": GRIDS,
        "guidance methods   --guidance SCALE --guidance-method NAME[:OPTION=N,...]": METHODS,
        "guidance with flags of its own": {flag: GUIDANCE[name] for name, flag in flags.items()},
    }
    if as_json:
        print(json.dumps({title.split("   ")[0]: rows(table) for title, table in tables.items()}, indent=2))
    else:
        print("\n\n".join(section(title, table) for title, table in tables.items()))


def rows(table: "Mapping[str, Entry]") -> dict[str, dict[str, object]]:
    """One table as JSON; an option without limit has the default null."""
    return {
        name: {
            "line": entry.line,
            "paper": entry.paper,
            "stochastic": entry.stochastic,
            "calls_per_step": entry.calls,
            "options": {
                option: None if value == float("inf") else value for option, value in entry.options().items()
            },
        }
        for name, entry in table.items()
    }


def section(title: str, table: "Mapping[str, Entry]") -> str:
    """One table as text: a line of what it is and its paper, and its options where it has some."""
    calls = "calls" in title
    width = max(len(name) for name in table) + 2
    lines = [title]
    for name, entry in table.items():
        cost = f"   [{entry.calls}]" if calls else ""
        lines.append(f"  {name:<{width}}{entry.line}   {entry.paper}{cost}")
        if options := entry.options() if ":" in title else {}:
            shown = ", ".join(f"{option}={value:g}" for option, value in options.items())
            lines.append(f"  {'':<{width}}  options: {shown}")
    return "\n".join(lines)
