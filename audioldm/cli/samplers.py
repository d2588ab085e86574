"""``audioldm samplers``: what ``--sampler`` and ``--set`` may name."""

from __future__ import annotations

from math import inf
from typing import Any

from audioldm.cli.options import AsJson, Command, leaves
from audioldm.cli.startup import later

with later():
    from audioldm.cli import generate
    from audioldm.diffusion import grids, guidance, samplers, table
    from audioldm.pipeline import guidance as methods

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

    Examples:
      audioldm samplers
      audioldm samplers --json
      audioldm generate "rain" --sampler vp_sde:rounds=2,size=0.1 --set grid=karras
    """

    def run(self) -> None:
        tables: dict[str, dict[str, table.Entry]] = {
            "samplers   --sampler NAME[:OPTION=N,...]   calls: of the network, per step": samplers.SAMPLERS,
            "grids   --set grid=NAME[:OPTION=N,...]": grids.GRIDS,
            "guidance methods   --guidance SCALE --set guidance_method=NAME[:OPTION=N,...]": methods.METHODS,
            "guidance with settings of its own": {
                key: guidance.GUIDANCE[name] for name, key in WRAPPERS.items()
            },
        }
        lines, report = list[str](), dict[str, Any]()
        for title, entries in tables.items():
            rows, width = report.setdefault(title.split("   ")[0], {}), max(map(len, entries)) + 2
            lines.append(title)
            for name, entry in entries.items():
                options = {key: None if value == inf else value for key, value in entry.options().items()}
                rows[name] = {"line": entry.line, "paper": entry.paper, "stochastic": entry.stochastic}
                rows[name] |= {"calls_per_step": entry.calls, "options": options}
                cost = f"   [{entry.calls}]" if "calls" in title else ""
                lines.append(f"  {name:<{width}}{entry.line}   {entry.paper}{cost}")
                if options and "NAME[" in title:
                    shown = ", ".join(f"{option}={value:g}" for option, value in entry.options().items())
                    lines.append(f"  {'':<{width}}  options: {shown}")
            lines.append("")
        settings = report.setdefault("settings", {})
        lines.append("settings   --set KEY=VALUE, repeatable")
        for leaf in (leaf for leaf in leaves(generate.Generate) if leaf.kind == "setting"):
            notes = [] if leaf.within is None else [str(leaf.within)]
            notes += [] if leaf.default in (None, [], "") else [f"default {leaf.default}"]
            about = {"form": leaf.form, "line": leaf.help, "range": f"[{'; '.join(notes)}]" if notes else ""}
            settings[leaf.name] = about
            lines += [f"  {leaf.name}={leaf.form}", f"      {leaf.help} {about['range']}".rstrip()]
        self.show(report, "\n".join(lines))
