"""The book of a benchmark loses nothing, and the GPU benchmark can be rehearsed where there is no GPU."""

import json
from pathlib import Path

import pytest
import torch

from audioldm.pipeline.timing import peak_mib
from benchmarks import cpu, gpu, measure, processes, show
from benchmarks.measure import Book, paired


def test_a_row_that_fails_says_why_and_the_others_are_on_disk(tmp_path: Path):
    book = Book(tmp_path / "rows.json", seconds=100, about={"what": "test"})
    book.add("a", "good", lambda: {"s": 1.0})
    book.add("a", "bad", lambda: {"s": 1 / 0})
    book.add("a", "too long", lambda: {"s": 2.0}, needs=1000)
    good, bad, long = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert good["s"] == 1.0
    assert bad["error"].startswith("ZeroDivisionError")
    assert "needs 1000" in long["skipped"] and "s" not in long


def test_paired_runs_take_turns():
    order = []
    rows = paired({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, "cpu", repeats=3)
    assert order == ["a", "b"] * 4  # one warm turn
    assert rows["a"]["n"] == 3 and rows["a"]["min_s"] <= rows["a"]["s"] <= rows["a"]["max_s"]


def test_cost_counts_a_convolution_as_the_formula_does():
    with torch.device("meta"):
        layer, x = torch.nn.Conv2d(3, 8, 3, padding=1), torch.empty(2, 3, 10, 10)
        cost = measure.cost(layer, lambda: layer(x), width=2)
    assert cost["flops"] == 2 * 2 * 8 * 10 * 10 * 3 * 9
    assert cost["bytes"] == 2 * (2 * 3 * 100 + 2 * 8 * 100 + 8 * 3 * 9 + 8)


def test_the_gpu_benchmark_runs_at_toy_size_and_finds_exact_equal_to_diffusers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(
        "sys.argv", ["gpu", "--rehearse", "--out", str(out), "--only", "peaks", "equality", "--seconds", "60"]
    )
    gpu.main()
    rows = {(row["group"], row["name"]): row for row in json.loads(out.read_text())["rows"]}
    assert not [row for row in rows.values() if "error" in row]
    assert (
        rows["equality S", "the same without TF32"]["max_relative_error"] < 1e-4
    )  # issue's bar for exact modes


def test_the_cpu_benchmark_runs_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "cpu.json"
    monkeypatch.setattr("sys.argv", ["cpu", "--rehearse", "--out", str(out), "--only", "parts", "whole"])
    cpu.main()
    rows = json.loads(out.read_text())["rows"]
    assert {"parts S", "whole S"} <= {row["group"] for row in rows}
    assert all(row["large product, fp32"]["tflops"] > 0 for row in rows[2:])  # in turn with the others
    assert not [row for row in rows if "error" in row or "skipped" in row]
    (whole,) = [row for row in rows if row["group"] == "whole S"]
    assert whole["exact"]["max_relative_error"] < 1e-4  # issue's bar for exact modes


def test_the_table_says_ratios_spreads_and_what_failed():
    machine = {"processor": "p", "threads": 2, "date": "d", "load": 0.0, "versions": {}}
    timed = {"times_faster": 2.0, "s": 0.5, "min_s": 0.4, "max_s": 0.6, "n": 3}
    rows = [
        {"group": "g", "name": "a", "ours": timed},
        {"group": "g", "name": "b", "error": "ValueError: no"},
    ]
    text = show.tables({"machine": machine, "rows": rows})
    assert "| a | ours | 2 | 0.5 (0.4..0.6, n=3) |  |" in text
    assert "| b |  |  |  | ValueError: no |" in text


def test_a_child_tells_its_own_memory_not_its_parents():
    ballast = torch.ones(100_000_000)  # 400 MB here
    row = processes.child("row = {'answer': 6 * 7}")
    assert row["answer"] == 42
    here = peak_mib(torch.device("cpu"))
    assert 100 < row["peak_mib"] < here - 300, ballast.shape
