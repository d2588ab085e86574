"""What is here: ``audioldm doctor`` the packages, ``bench`` how fast a model is, ``samplers`` what may be named."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib import metadata
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from audioldm import __version__
from audioldm.cli.console import progress, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, argument, changed, leaves, option
from audioldm.cli.options.groups import ModelOptions, Pipe, Sampling
from audioldm.cli.startup import later, loading
from audioldm.paths import cache_folder
from audioldm.tables import markdown

with later():
    import torch
    from huggingface_hub import constants

    from audioldm.cli import generate
    from audioldm.diffusion import grids, guidance, samplers, table
    from audioldm.pipeline import guidance as methods
    from audioldm.pipeline import timing


class Doctor(AsJson, Command):
    """Show versions, devices, caches and optional parts; exit code 1 if a needed part is missing.

    Example:
      audioldm doctor
    """

    def run(self) -> None:
        report = examine()
        missing = f"MISSING: {add_command()}"
        sections = {"needed": {name: version or missing for name, version in report["needed"].items()}}
        for extra, parts in report["optional"].items():
            incomplete = f"   incomplete: {report['add'][extra]}" if extra in report["add"] else ""
            sections[f"extra {extra}{incomplete}"] = {name: version or "-" for name, version in parts.items()}
        offline = "   (HF_HUB_OFFLINE is set: nothing is downloaded)" if report["offline"] else ""
        caches = sections[f"caches{offline}"] = {}
        for name, cache in report["caches"].items():
            size = "empty" if cache["bytes"] is None else f"{cache['bytes'] / 1e6:,.0f} MB"
            caches[name] = f"{cache['path']}   {size}"
        lines = ["audioldm {audioldm}   Python {python}   {platform}".format(**report)]
        for title, rows in sections.items():
            lines += ["", title, *(f"  {name:<22}{text}" for name, text in rows.items())]
        self.show(report, "\n".join([*lines, "", f"devices   {', '.join(report['devices'])}"]))
        if None in report["needed"].values():
            sys.exit(1)


def examine() -> dict[str, Any]:
    """Names and versions of what the package and each extra needs, devices and caches."""
    parts = requirements()
    needed, devices, caches = parts.pop("", {}), list[str](), {"embedders": cache_folder()}
    if version_of("torch"):
        devices.append(f"cpu ({torch.get_num_threads()} threads)")
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            size = f"{about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            devices.append(f"cuda:{i} {about.name}, {size}")
        devices += ["mps"] * torch.backends.mps.is_available()
    if version_of("huggingface_hub"):
        caches["hub"] = Path(constants.HF_HUB_CACHE)
    return {
        "audioldm": __version__, "python": platform.python_version(), "platform": platform.platform(),
        "needed": needed, "optional": dict(parts), "devices": devices,
        "add": {extra: add_command(f"[{extra}]") for extra, names in parts.items() if None in names.values()},
        "caches": {name: {"path": str(folder), "bytes": size_of(folder)} for name, folder in caches.items()},
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }  # fmt: skip


def requirements() -> dict[str, dict[str, str | None]]:
    """Of each extra, and by "" of the package itself, what it needs in which version."""
    try:
        needed = metadata.requires("audioldm") or []
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        needed = ["audioldm"]
    parts: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
    for requirement in needed:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        for name in re.findall(r"^[\w.-]+", requirement):
            parts[extra[1] if extra else ""][name] = version_of(name)
    return parts


def size_of(folder: Path) -> int | None:
    """Bytes of the files in a folder, links aside; None where there is none."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) if folder.is_dir() else None


def add_command(extra: str = "") -> str:
    """The command that adds ``[extra]``, or the package itself: from the checkout where there is one."""
    root = Path(__file__).parents[2]
    is_checkout = (root / "pyproject.toml").is_file()
    return f'pip install -e "{root}{extra}"' if is_checkout else f'pip install "audioldm{extra}"'


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class Bench(DryRun, AsJson, Command):
    """Time a model on this machine, part by part.

    Median of the runs; gflop counts a multiply-add as two; "of peak" compares with a large matrix product in the same
    number type here, so 100 % is a floor that nothing with these layers goes below.

    Examples:
      audioldm bench
      audioldm bench --mode fast
      audioldm bench --dry-run --set dtype=bfloat16
      audioldm bench -m out/model --seconds 10 --steps 25 --device cuda --mode fast --json
    """

    prompt: str = argument("a dog barking", "What to generate meanwhile.")
    batch_size: int = option(1, "Clips made at once.", Between(1, 4096))
    repeat: int = option(3, "Timed runs, after one that warms up.", Between(1, 10_000))
    sampling: Sampling = Sampling()
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        with waiting("loading torch and the model"), loading():
            self.sampling.check(self.model.device)
            if self.dry_run:
                settings = changed(self.sampling, self.model) or "the model's own settings"
                what = f"{self.batch_size} clips of {self.prompt!r}, {self.repeat} times after a warm-up"
                would(f"{what}; {settings}")
                return
            pipe = self.model.load()
        with progress(self.repeat + 1, "runs") as step:
            result = self.measure(pipe, step)
        self.show(result, table_of(result))

    def measure(self, pipe: Pipe, step: Callable[[], None]) -> dict[str, Any]:
        settings, size = self.sampling.named(), self.batch_size
        whole = pipe.defaults.merged(**settings)

        def run() -> None:
            pipe([self.prompt] * size, seeds=range(size), batch_size=size, **settings)
            step()

        # warms up; recorded graphs hide their operations
        counted = timing.trace(pipe, run, count=pipe.mode == "exact")
        runs = [timing.trace(pipe, run) for _ in range(self.repeat)]
        peak, parts = timing.matmul_rate(pipe.device, pipe.dtype), dict[str, Any]()
        for part in timing.PARTS:
            flops, times = counted[part].flops, [usage[part].seconds for usage in runs]
            parts[part] = {
                "s": median(times), "least_s": min(times), "most_s": max(times),
                "calls": runs[-1][part].calls, "gflop": flops / 1e9,
                "of_peak": flops / median(times) / peak if flops else None,
            }  # fmt: skip
        took = median(usage["all"].seconds for usage in runs)
        return {
            "model": pipe.name, "mode": pipe.mode, "dtype": str(pipe.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(pipe.device) if pipe.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(), "clips": size, "seconds": whole.seconds, "steps": whole.steps,
            "s": took, "real_time_factor": took / (whole.seconds * size), "clips_per_minute": 60 * size / took,
            "peak_mib": timing.peak_mib(pipe.device), "peak_gflop_per_s": peak / 1e9, "parts": parts,
        }  # fmt: skip


def table_of(result: dict[str, Any]) -> str:
    about = (
        "{model}, {mode} ({dtype}) on {device}, {threads} threads: {clips} x {seconds:g} s, {steps} steps\n"
        "{s:.3f} s, {real_time_factor:.3f} of real time, {clips_per_minute:.1f} clips/min, "
        "peak memory {peak_mib:.0f} MiB, matrix peak {peak_gflop_per_s:.0f} GFLOP/s\n"
    )
    rows = []
    for part, row in result["parts"].items():
        spread = "{least_s:.3f} to {most_s:.3f}".format(**row)
        counts = [row["gflop"] or None, row["of_peak"]]
        rows.append([part, row["calls"] or None, row["s"], row["s"] / result["s"], spread, *counts])
    head = ["part", "calls", "s", "share", "least to most", "gflop", "of peak"]
    return about.format(**result) + markdown(head, rows)


WRAPPERS = {
    "negative": "--negative TEXT", "compose": "guidance_extra_prompts=TEXT:WEIGHT",
    "interval": "guidance_interval=LOW,HIGH", "autoguidance": "guidance_weak=FOLDER",
    "dynamic_threshold": "guidance_threshold=QUANTILE,FLOOR", "reward": "guidance_clap=STRENGTH",
    "classifier": "guidance_classifier=FOLDER and guidance_class=NAME",
}  # fmt: skip


class Samplers(AsJson, Command):
    """List samplers, grids of noise levels, guidance methods, and every key of --set.

    Options are written behind a name, as in --sampler ddim:eta=1 or --set grid=karras:rho=5.

    Examples:
      audioldm samplers
      audioldm generate "rain" --sampler vp_sde:rounds=2,size=0.1 --set grid=karras
    """

    def run(self) -> None:
        others = {key: guidance.GUIDANCE[name] for name, key in WRAPPERS.items()}
        tables: dict[str, dict[str, table.Entry]] = {
            "samplers   --sampler NAME[:OPTION=N,...]   calls: of the network, per step": samplers.SAMPLERS,
            "grids   --set grid=NAME[:OPTION=N,...]": grids.GRIDS,
            "guidance methods   --guidance SCALE --set guidance_method=NAME[:OPTION=N,...]": methods.METHODS,
            "guidance with settings of its own": others,
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
