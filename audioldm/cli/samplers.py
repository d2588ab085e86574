"""``audioldm samplers``: what ``--sampler`` and ``--set`` may name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from audioldm.cli.console import show_json
from audioldm.cli.options import AsJson, Command, leaves

if TYPE_CHECKING:
    from audioldm.diffusion.table import Entry

WRAPPERS = {
    "negative": "--negative TEXT",
    "compose": "guidance_extra_prompts=TEXT:WEIGHT",
    "interval": "guidance_interval=LOW,HIGH",
    "autoguidance": "guidance_weak=FOLDER",
    "dynamic_threshold": "guidance_threshold=QUANTILE,FLOOR",
    "reward": "guidance_clap=STRENGTH",
    "classifier": "guidance_classifier=FOLDER and guidance_class=NAME",
}


class Samplers(AsJson, Command):
    """List samplers, grids of noise levels, guidance methods, and every key of --set.

    Options are written behind a name, as in --sampler ddim:eta=1 or --set grid=karras:rho=5.

    \b
    Examples:
      audioldm samplers
      audioldm samplers --json
      audioldm generate "rain" --sampler vp_sde:rounds=2,size=0.1 --set grid=karras
    """

    def run(self) -> None:
        from audioldm.cli.generate import Generate
        from audioldm.diffusion.grids import GRIDS
        from audioldm.diffusion.guidance import GUIDANCE
        from audioldm.diffusion.samplers import SAMPLERS
        from audioldm.pipeline.guidance import METHODS

        tables = {
            "samplers   --sampler NAME[:OPTION=N,...]   calls: of the network, per step": SAMPLERS,
            "grids   --set grid=NAME[:OPTION=N,...]": GRIDS,
            "guidance methods   --guidance SCALE --set guidance_method=NAME[:OPTION=N,...]": METHODS,
            "guidance with settings of its own": {key: GUIDANCE[name] for name, key in WRAPPERS.items()},
        }
        settings: dict[str, dict[str, str]] = {}
        for leaf in (leaf for leaf in leaves(Generate) if leaf.kind == "setting"):
            notes = [] if leaf.within is None else [str(leaf.within)]
            notes += [] if leaf.default in (None, [], "") else [f"default {leaf.default}"]
            range_of = f"[{'; '.join(notes)}]" if notes else ""
            settings[leaf.name] = {"form": leaf.form, "line": leaf.help, "range": range_of}
        if self.as_json:
            result: dict[str, Any] = {title.split("   ")[0]: rows(table) for title, table in tables.items()}
            show_json({**result, "settings": settings})
            return
        print("\n\n".join(section(title, table) for title, table in tables.items()))
        print("\nsettings   --set KEY=VALUE, repeatable")
        for key, about in settings.items():
            print(f"  {key}={about['form']}\n      {about['line']} {about['range']}".rstrip())


def rows(table: "Mapping[str, Entry]") -> dict[str, dict[str, object]]:
    return {
        name: {
            "line": entry.line, "paper": entry.paper, "stochastic": entry.stochastic, "calls_per_step": entry.calls,
            "options": {key: None if value == float("inf") else value for key, value in entry.options().items()},
        }
        for name, entry in table.items()
    }  # fmt: skip


def section(title: str, table: "Mapping[str, Entry]") -> str:
    """One table as text: a line of what it is and its paper, and its options where it has some."""
    width, lines = max(map(len, table)) + 2, [title]
    for name, entry in table.items():
        cost = f"   [{entry.calls}]" if "calls" in title else ""
        lines.append(f"  {name:<{width}}{entry.line}   {entry.paper}{cost}")
        if options := entry.options() if "NAME[" in title else {}:
            shown = ", ".join(f"{option}={value:g}" for option, value in options.items())
            lines.append(f"  {'':<{width}}  options: {shown}")
    return "\n".join(lines)
