"""The page about a run, from files as training writes them."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs with curves, previews and settings."""
    made = []
    for number, lr in enumerate((1e-3, 3e-4)):
        run = tmp_path / f"run{number}"
        run.mkdir()
        rows = [{"batch": b, "train/loss": 1 / (b + number)} for b in range(1, 60)]
        rows += [{"batch": b, "val/loss": 2 / (b + number)} for b in (20, 40)]
        (run / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows) + '{"batch": 60, "tr'
        )
        (run / "config.yaml").write_text(f"recipe: tiny/vae\ntask:\n  lr: {lr}\n  beta: <1>\n")
        (run / "provenance.json").write_text(json.dumps({"audioldm": "0.1.0", "git": {"commit": "abc"}}))
        board = SummaryWriter(str(run / "tensorboard"))
        for step in range(0, 70, 10):
            tone = 0.3 * torch.sin(torch.arange(8000) * 0.05 * (1 + step / 70))
            board.add_audio("wave/made/0", tone, step, 16000)
            board.add_image("mel/made/0", torch.rand(1, 64, 50), step)
        board.close()
        made.append(run)
    return made


def test_the_page_holds_everything_and_needs_nothing(runs: list[Path], command, capsys) -> None:
    assert command("report", runs[0], "--against", runs[1]) == 0
    assert capsys.readouterr().out.strip() == str(runs[0] / "report.html")
    page = (runs[0] / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<audio") == 5
    for step in (0, 60):
        assert f"batch {step}<" in page
    assert "&lt;1&gt;" in page and "<1>" not in page
    differ = page[page.index("Settings that differ") :]
    assert "-  lr: 0.0003\n+  lr: 0.001" in differ and "+  beta" not in differ
    assert "commit abc" in page


def test_wrong_runs_are_told(runs: list[Path], command, capsys, tmp_path: Path) -> None:
    assert command("report", tmp_path / "none") == 2
    assert "There is no run" in capsys.readouterr().err
    assert command("report", tmp_path) == 2
    assert "metrics.jsonl cannot be read" in capsys.readouterr().err
    (runs[0] / "metrics.jsonl").write_text("")
    assert command("report", runs[0]) == 2
    assert "is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ['{"batch": 60, "train/loss": [1]}', '{"batch": 1e999, "a": 1}', '{"a": 1}', f'{{"batch": {10**400}}}',
             "{}", '{"batch": {}, "a": 1}', '{"a": ' * 3000 + "}", "{\ufffd\0}"],
)  # fmt: skip
def test_lines_that_no_training_wrote_are_left_out(runs: list[Path], line: str) -> None:
    from audioldm.evaluation.run_report import read_run
    from audioldm.training.callbacks import read_metrics

    path = runs[0] / "metrics.jsonl"
    series, rows = read_run(runs[0]), read_metrics(path)
    path.write_text(f"{line}\n{path.read_text()}\n{line}\n")
    assert read_run(runs[0]) == series
    assert [row for row in read_metrics(path) if row["batch"] < 1e300] == rows


def test_a_damaged_file_of_a_run_is_named(runs: list[Path], command, capsys) -> None:
    (runs[1] / "config.yaml").unlink()
    assert command("report", runs[0], "--against", runs[1]) == 2
    assert "config.yaml cannot be read" in capsys.readouterr().err
    for text in ("", "[]", "[" * 100_000):
        (runs[0] / "provenance.json").write_text(text)
        assert command("report", runs[0]) == 2
        assert "provenance.json" in capsys.readouterr().err
