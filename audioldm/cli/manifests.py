"""What every command that makes a manifest does: check with a bar, report findings, write."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from audioldm.cli.console import printable, progress, show_findings, show_json
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.check import Report
    from audioldm.datasets.manifest import Finding, Row

SHOWN = 20
"""findings of one kind that are printed one by one"""


def finish(
    rows: "Sequence[Row]", findings: "Sequence[Finding]", out: Path, as_json: bool, *, workers: int = 0
) -> None:
    """Check the rows, report findings, and write the sound ones; many findings go to a file beside ``out``."""
    from audioldm.datasets import manifest

    report = examine(rows, findings, workers)
    show(report, as_json, out.with_suffix(".findings.jsonl"))
    if not report.rows:
        raise AudioLDMError(f"No sound is left; {out} was not written.", "See the findings above.", code=1)
    manifest.write(report.rows, out)
    if empty := [split for split in manifest.SPLITS if not any(row.split == split for row in report.rows)]:
        print(f"note: no clip is in {' or '.join(empty)}", file=sys.stderr)


def examine(rows: "Sequence[Row]", findings: "Sequence[Finding]", workers: int = 0) -> "Report":
    """Check with a bar; ``findings`` made earlier come first.  Few sounds are not worth the start of processes."""
    from audioldm.datasets import check

    with progress(len(rows), "sounds") as step:
        report = check.check(rows, workers=workers if len(rows) > 200 else 0, on_row=step)
    return check.Report(report.rows, [*findings, *report.findings])


def show(report: "Report", as_json: bool, rest: Path | None = None) -> None:
    """Findings, each with its name, to stderr, at most SHOWN of a kind; the summary to stdout.

    All of them go to ``rest``, if that is given and there are more.
    """
    counts, shown = Counter[str](), []
    for finding in report.findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= SHOWN or rest is None:
            shown.append(finding)
    show_findings(shown)
    if rest is not None and len(shown) < len(report.findings):
        record(report, rest)
        print(f"... and more; all {len(report.findings)} are in {rest}", file=sys.stderr)
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        print(f"found: {kinds}", file=sys.stderr)
    summary = report.summary()
    if as_json:
        show_json(summary)
        return
    for key, value in summary.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{name or '(none)'} {count}" for name, count in value.items())
        print(f"{key:9} {printable(str(text)) or 'none'}")


def record(report: "Report", path: Path) -> None:
    """Every finding as one line of JSON."""
    from audioldm.datasets.manifest import json_line
    from audioldm.paths import write_text

    write_text(path, "".join(json_line(asdict(finding)) for finding in report.findings))
