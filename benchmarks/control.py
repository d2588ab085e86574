"""Does a control steer?   What each net was trained for, with it and without, on the same seeds.

    python -m benchmarks.control data/raw/esc10.jsonl --notes data/raw/rendered.jsonl          # the shipped nets
    python -m benchmarks.control data/raw/esc10.jsonl --net controlnet=runs/control/controlnet/model/control

Each held-out clip gives the curve; another class's prompt, or another instrument's, gives the words, so that words
alone cannot explain a match.   Pitch is asked of notes and phrases (``--notes``), the rest of ESC-10's test fold.
Adds its rows to benchmarks/results/control.{json,md}.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.control.maps import MAPS
from audioldm.control.shipped import LIKE, SHIPPED
from audioldm.control.steer import MapControl, load_net
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.manifest import Row, read
from audioldm.evaluation.recognition import PROMPTS
from audioldm.nets.folder import weight_file
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import clap_of
from audioldm.signal.level import normalise_peak
from audioldm.spec import AudioSpec

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 5
"""mel frames (50 ms) that an onset may be off: mir_eval's default"""
NEAR = 50.0
"""cents that count as the same pitch: mir_eval's raw pitch accuracy"""
COLUMNS = {
    "loudness_rmse_db": ("loudness RMSE, dB", 1, False),
    "loudness_r": ("loudness r", 2, True),
    "pitch_right": ("pitch right", 2, True),
    "pitch_cents": ("pitch error, cents", 0, False),
    "onset_f1": ("onset F1", 2, True),
    "centroid_octaves": ("centroid error, octaves", 2, False),
    "edges_r": ("edges r", 2, True),
    "adherence": ("CLAP to words", 2, True),
}
"""number: its title, its digits, whether more is better"""
OWN = {
    "loudness": "loudness_rmse_db",
    "pitch": "pitch_right",
    "onset": "onset_f1",
    "centroid": "centroid_octaves",
    "edges": "edges_r",
}
"""what each map is judged by"""


def smooth(curve: Tensor, width: int = 11) -> Tensor:
    """Mean over ``width`` frames: a control says how loud, not each ripple."""
    return nnf.avg_pool1d(curve[None, None], width, 1, width // 2, count_include_pad=False)[0, 0]


def loudness_rmse(wanted: Tensor, made: Tensor) -> float:
    """dB between curves of which each may be louder as a whole: a file has no absolute level."""
    difference = smooth(made) - smooth(wanted)
    return float((difference - difference.mean()).square().mean().sqrt())


def octaves(wanted: Tensor, made: Tensor) -> Tensor:
    """Signed distance over the frames where both curves (Hz) have a value."""
    both = (wanted > 0) & (made > 0)
    return (made[both] / wanted[both]).log2()


def pitch_cents(wanted: Tensor, made: Tensor) -> float | None:
    """Median distance in cents over frames where both have a pitch; None where there is none."""
    apart = 1200 * octaves(wanted, made).abs()
    return float(apart.median()) if apart.numel() else None


def pitch_right(wanted: Tensor, made: Tensor) -> float | None:
    """Share of the frames with a wanted pitch that have it within NEAR; no pitch is wrong."""
    asked = int((wanted > 0).sum())
    return float((1200 * octaves(wanted, made).abs() <= NEAR).sum()) / asked if asked else None


def onset_f1(wanted: Tensor, made: Tensor) -> float:
    """F1 of onsets matched one to one within TOLERANCE."""
    left, found = made.nonzero()[:, 0].tolist(), 0
    asked = wanted.nonzero()[:, 0].tolist()
    for frame in asked:
        near = [other for other in left if abs(other - frame) <= TOLERANCE]
        if near:
            left.remove(min(near, key=lambda other: abs(other - frame)))
            found += 1
    total = len(asked) + int(made.count_nonzero())
    return 2 * found / total if total else 1.0


def correlation(wanted: Tensor, made: Tensor) -> float:
    """Pearson's r of two arrays, 0 where one is constant."""
    return float(torch.corrcoef(torch.stack([wanted.flatten(), made.flatten()]))[0, 1].nan_to_num())


def blurred(edges: Tensor) -> Tensor:
    """Edges (T, F) averaged over 5 x 3 cells: an edge a cell beside is nearly right."""
    return nnf.avg_pool2d(edges[None, None], (5, 3), 1, (2, 1), count_include_pad=False)[0, 0]


def scores(wanted: Tensor, made: Tensor, spec: AudioSpec) -> dict[str, float | None]:
    """Every number of a made wave (N,) against the wave (N,) that gave the curve."""
    a, b = ({name: kind.hear(wave, spec) for name, kind in MAPS.items()} for wave in (wanted, made))
    size = min(len(a["loudness"]), len(b["loudness"]))
    a, b = ({k: v[:size] for k, v in side.items()} for side in (a, b))
    apart = octaves(a["centroid"], b["centroid"]).abs()
    return {
        "loudness_rmse_db": loudness_rmse(a["loudness"], b["loudness"]),
        "loudness_r": correlation(smooth(a["loudness"]), smooth(b["loudness"])),
        "pitch_right": pitch_right(a["pitch"], b["pitch"]),
        "pitch_cents": pitch_cents(a["pitch"], b["pitch"]),
        "onset_f1": onset_f1(a["onset"], b["onset"]),
        "centroid_octaves": float(apart.mean()) if apart.numel() else None,
        "edges_r": correlation(blurred(a["edges"]), blurred(b["edges"])),
    }


def means(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    """Mean of each number over the clips that have it, and how many do."""
    out: dict[str, Any] = {}
    for name in rows[0]:
        values = [v for row in rows if (v := row[name]) is not None]
        out[name] = sum(values) / len(values) if values else None
        out[f"{name}_clips"] = len(values)
    return out


def wins(name: str, off: list[dict[str, float | None]], on: list[dict[str, float | None]]) -> list[int]:
    """On how many of the clips that have the number the control is better than none, and how many have it."""
    better = COLUMNS[name][2]
    pairs = [
        (a, b)
        for x, y in zip(off, on, strict=True)
        if (a := x[name]) is not None and (b := y[name]) is not None
    ]
    return [sum((b > a) if better else (b < a) for a, b in pairs), len(pairs)]


def asked(rows: list[Row], count: int, *, notes: bool) -> Iterator[tuple[Row, str]]:
    """``count`` rows in a fixed random order, each with the words of another class or instrument."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    names = sorted({row.labels[0] for row in rows if row.labels})
    for i, row in enumerate(rows[j] for j in order[:count]):
        own = row.labels[0] if row.labels else ""
        others = [name for name in names if name != own]
        if notes:
            instrument, what = others[i % len(others)].rsplit(" ", 1)
            yield row, f"a {instrument} playing a {'note' if what == 'note' else 'melody'}"
        else:
            words = [prompt for label, prompt in PROMPTS.items() if label != own]
            yield row, words[i % len(words)]


def measure(pipe: AudioLDM, folder: Path, rows: list[Row], given: argparse.Namespace) -> dict[str, Any]:
    """One net on ``given.clips`` of ``rows``: no control, and the control at each scale."""
    net = load_net(folder)
    name = net.config.map
    settings = {"seconds": given.seconds, "steps": given.steps}
    found: dict[float, list[dict[str, float | None]]] = {scale: [] for scale in (0.0, *given.scales)}
    for i, (row, prompt) in enumerate(asked(rows, given.clips, notes=name == "pitch")):
        wave = normalise_peak(AudioText([row], pipe.spec, given.seconds, seed=i)[0][0])[0]
        curve, words = MAPS[name].hear(wave, pipe.spec), pipe.clap.embed_text([prompt]).detach()
        for scale in found:
            made = replace(pipe, controls=(MapControl(net, curve, pipe.spec, scale),))(
                [prompt], seeds=[i], **settings
            )
            adherence = float((clap_of(pipe, made) * words).sum())
            found[scale].append({**scores(wave, made[0], pipe.spec), "adherence": adherence})
    return {
        "map": name,
        "net": type(net).__name__,
        "parameters": sum(p.numel() for p in net.parameters()),
        "megabytes": weight_file(folder).stat().st_size / 1e6,
        "clips": given.clips,
        **settings,
        "guidance": pipe.defaults.guidance,
        "wins": {f"scale {s:g}": wins(OWN[name], found[0.0], r) for s, r in found.items() if s},
        "rows": {("no control" if s == 0 else f"scale {s:g}"): means(r) for s, r in found.items()},
    }


def table(report: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"# What each control does, {report['model']}\n",
        "Held-out clips give the curve, another class's or instrument's prompt the words; the same noise in every row "
        "of a net. Better: on how many clips the control's own number (bold) is better than without. Loudness RMSE is "
        "after the mean difference is taken off; pitch right is the share of frames with a wanted pitch that have it "
        f"within {NEAR:.0f} cents; onsets may be {TOLERANCE * 10} ms off. benchmarks/control.py says the rest.\n",
        f"| map | net | parameters | MB | clips x s, CFG | | better | {' | '.join(c[0] for c in COLUMNS.values())} |",
        f"|---|---|--:|--:|--:|---|--:|{'--:|' * len(COLUMNS)}",
    ]
    for one in report["nets"].values():
        head = f"{one['map']} | {one['net']} | {one['parameters'] / 1e6:.2f} M | {one['megabytes']:.2f}"
        for name, row in one["rows"].items():
            won = one["wins"].get(name)
            cells = [
                head,
                f"{one['clips']} x {one['seconds']:g}, {one['guidance']:g}",
                name,
                f"{won[0]} of {won[1]}" if won else "",
            ]
            for key, (_, digits, _) in COLUMNS.items():
                value = "-" if row[key] is None else f"{row[key]:.{digits}f}"
                cells.append(f"**{value}**" if key == OWN[one["map"]] else value)
            lines.append(f"| {' | '.join(cells)} |")
            head = " | | | "
    return "\n".join(lines) + "\n"


def main() -> None:
    """Every net that was named, or that is shipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest")
    parser.add_argument("--notes", help="manifest of single notes, for pitch")
    parser.add_argument("--net", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--model")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    pipe = AudioLDM.from_pretrained(given.model)
    named = [(name, Path(folder)) for name, _, folder in (text.partition("=") for text in given.net)]
    shipped = sorted(p.parent for p in SHIPPED.glob("*/config.json") if p.parent.name != LIKE)
    given.out.mkdir(parents=True, exist_ok=True)
    place = given.out / "control.json"
    report = json.loads(place.read_text()) if place.exists() else {"nets": {}}
    report["model"] = pipe.name
    for name, folder in named or [(folder.name, folder) for folder in shipped]:
        notes = load_net(folder).config.map == "pitch"
        if notes and given.notes is None:
            parser.error("pitch is asked of notes: give --notes")
        rows = read(given.notes if notes else given.manifest, split=given.split)
        rows = [
            row for row in rows if not notes or (row.labels and row.labels[0].endswith((" note", " phrase")))
        ]
        report["nets"][name] = measure(pipe, folder, rows, given)
        place.write_text(json.dumps(report, indent=1) + "\n")
        place.with_suffix(".md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
