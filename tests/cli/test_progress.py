"""The bar of a long run never says that more is done than there is."""

import json
import re
import sys

import pytest

from audioldm.cli.console import progress


def test_the_total_grows_where_a_clip_is_drawn_again(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress(4) as advance:
        for done in range(6):
            advance(1, done, 6)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "6/4" not in shown


def test_nothing_is_shown_where_nobody_looks(capsys):
    with progress(4) as advance:
        advance(4)
    assert not capsys.readouterr().err.strip()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_training_tells_its_speed_and_draws_one_bar_on_a_terminal(
    command, capsys, monkeypatch, tmp_path, terminal
):
    monkeypatch.chdir(tmp_path)
    words = (
        "batches=4",
        "batch_size=2",
        "seconds=0.32",
        "+trainer.limit_val_batches=1",
        "val_every=2",
        "trainer.log_every_n_steps=1",
    )
    words += ("callbacks.bar.refresh_rate=1", "callbacks.throughput.every=1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert command("train", "tiny/vae", *words) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["runs/tiny/vae/model"], "no bar is part of the result"
    assert re.search(
        r"4 batches: \S+ samples/s, \d+% of the time waiting for data, peak memory \S+ GB\n", err
    )
    assert ("4/4" in err and "it/s" in err) == terminal
    rows = [
        json.loads(line) for line in (tmp_path / "runs/tiny/vae/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert any({"speed/samples_per_s", "speed/data_wait", "speed/peak_gb"} <= row.keys() for row in rows)
