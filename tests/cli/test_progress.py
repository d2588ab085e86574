"""The bar of a long run never says that more is done than there is."""

import json
import random
import re
import sys
import time

import numpy as np
import pytest
import soundfile

from audioldm.cli.console import progress, waiting
from audioldm.listening.folder import load
from audioldm.listening.study import Study
from audioldm.progress import counted
from notebooks.simulated_raters import take


def test_the_total_grows_where_a_clip_is_drawn_again(terminal):
    with progress(4) as advance:
        for done in range(6):
            advance(1, done, 6)
    shown = terminal()
    assert "6/6" in shown and "6/4" not in shown


def test_nothing_is_shown_where_nobody_looks(capsys):
    with progress(4) as advance:
        advance(4)
    assert not capsys.readouterr().err.strip()


@pytest.mark.parametrize("watched", [True, False])
def test_a_training_tells_its_speed_and_draws_one_bar_on_a_terminal(
    command, capsys, monkeypatch, tmp_path, watched
):
    monkeypatch.chdir(tmp_path)
    words = "batches=4 batch_size=2 seconds=0.32 +trainer.limit_val_batches=1 val_every=2 trainer.log_every_n_steps=1"
    words += " callbacks.bar.refresh_rate=1 callbacks.throughput.every=1"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched, raising=False)
    assert command("train", "tiny/vae", *words.split()) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["runs/tiny/vae/model"], "no bar is part of the result"
    assert re.search(
        r"4 batches: \S+ samples/s, \d+% of the time waiting for data, peak memory \S+ GB\n", err
    )
    assert ("4/4" in err and "it/s" in err) == watched
    rows = [
        json.loads(line) for line in (tmp_path / "runs/tiny/vae/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert any({"speed/samples_per_s", "speed/data_wait", "speed/peak_gb"} <= row.keys() for row in rows)


def test_what_is_counted_has_a_bar_with_rate_and_time_left_and_a_bar_within_it_is_the_same(terminal):
    with waiting("outer"), waiting("inner"):
        for unit in ("MB", "nets"):
            for _ in counted(range(5), unit, lambda item: 2.0):
                time.sleep(0.01)
    shown = terminal()
    assert "inner" not in shown and "10/10 nets" in shown
    assert re.search(r"outer .*10/10 MB, [\d.]+ MB/s .*0:00:0\d", shown), shown


def test_loading_exporting_and_analysing_have_bars(command, terminal, monkeypatch, tmp_path, tiny_model):
    monkeypatch.chdir(tmp_path)
    words = ("-m", tiny_model, "-o", "out", "--steps", "1", "--seconds", "0.64", "--set", "figure=false")
    assert command("generate", "rain", *words) == 0
    shown = terminal()
    assert all(re.search(rf"([\d.]+)/\1 {unit}", shown) for unit in ("MB", "nets"))
    assert command("export", tiny_model, "-o", "model") == 0
    assert "writing model" in (shown := terminal()) and "3/3 nets" in shown
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            wave = np.sin(np.arange(16000) / (9 + number + 2 * (name == "a"))) / 4
            soundfile.write(tmp_path / name / f"clip{number}.wav", wave, 16000)
    assert command("listen", "prepare", "a=a", "b=b", "-o", "test", "--seed", "1") == 0
    assert "4/4 prompts" in terminal()
    study = Study(load(tmp_path / "test"))
    take(study, {"a": 1.0, "b": -1.0}, rng=random.Random(0))
    study.close()
    assert command("listen", "analyse", "test", "--resamples", "100", "--keep-all") == 0
    assert re.search("analysing.*clips", shown := terminal()) and "1/1 figures" in shown
    assert command("train", "tiny/vae", "batches=1", "batch_size=2", "val_every=1", "run_dir=run") == 0
    assert "reading the data and the nets" in terminal()
