"""``audioldm samplers``: what ``--sampler`` and ``--set`` may name."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.options import Between, Setting, default_of, form_of, leaves, metadata, settings_of

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


def samplers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List samplers, grids of noise levels, guidance methods, and every key of --set.

    Options are written behind a name, as in --sampler ddim:eta=1 or --set grid=karras:rho=5.

    \b
    Examples:
      audioldm samplers
      audioldm samplers --json
      audioldm generate "rain" --sampler vp_sde:rounds=2,size=0.1 --set grid=karras
    """
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
    settings = described_settings()
    if as_json:
        result: dict[str, Any] = {title.split("   ")[0]: rows(table) for title, table in tables.items()}
        print(json.dumps({**result, "settings": settings}, indent=2))
        return
    print("\n\n".join(section(title, table) for title, table in tables.items()))
    print("\nsettings   --set KEY=VALUE, repeatable")
    for key, about in settings.items():
        print(f"  {key}={about['form']}\n      {about['line']} {about['range']}".rstrip())


def described_settings() -> dict[str, dict[str, str]]:
    """Every key of ``--set`` of generate, with its form, its line, and its range and default."""
    from audioldm.cli.generate import Request

    described = {}
    for group in fields(Request):
        defaults = {field.name: default_of(field) for field, _ in leaves(group.type)}
        for key, hint in settings_of(group.type).items():
            about, between, default = metadata(hint, Setting), metadata(hint, Between), defaults[key]
            limits = "" if between is None else f"{between.low:g} to {between.high:g}"
            shown = "" if default in (None, [], "") else f"default {default}"
            described[key] = {
                "form": form_of(hint),
                "line": about.help if about else "",
                "range": f"[{'; '.join(filter(None, (limits.replace(' to inf', ' or more'), shown)))}]".replace(
                    "[]", ""
                ),
            }
    return described


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
        if options := entry.options() if "NAME[" in title else {}:
            shown = ", ".join(f"{option}={value:g}" for option, value in options.items())
            lines.append(f"  {'':<{width}}  options: {shown}")
    return "\n".join(lines)
