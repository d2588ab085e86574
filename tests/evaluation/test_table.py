"""No spreadsheet takes a cell of any table that we write for a formula."""

import csv
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import audioldm
from audioldm.evaluation.prompts import Report as PromptReport
from audioldm.evaluation.report import as_csv
from audioldm.tables import csv_text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\n=1"])
def test_cells_that_begin_like_a_formula_are_quoted(text: str) -> None:
    clip = {"seed": 0, "file": text, "right": True, "fit": 0.5, "tags": {text: -0.5}}
    prompts = SimpleNamespace(results=[SimpleNamespace(name=text, clips=[clip])], real=[])
    scores = SimpleNamespace(clips=[{"id": text, "kl": -0.5, text: text}])
    for table in (PromptReport.csv(prompts), as_csv(scores)):  # type: ignore[arg-type]
        cells = [cell for row in csv.reader(io.StringIO(table, newline="")) for cell in row]
        assert f"'{text}" in cells and text not in cells and "-0.5" in cells


def test_a_line_end_in_a_cell_begins_no_row() -> None:
    for text in ("a\r=1", "a\r\n=1", "a\n=1", "\r=1"):
        rows = list(csv.reader(io.StringIO(csv_text(["name"], [[text]]), newline="")))
        assert len(rows) == 2 and not rows[1][0].startswith("="), text


def test_every_table_is_written_by_the_one_function() -> None:
    root = Path(audioldm.__file__).parent
    writers = [
        p.name for p in root.rglob("*.py") if re.search(r"csv\.(writer|DictWriter)|to_csv", p.read_text())
    ]
    assert writers == ["tables.py"]
