"""The benchmark of training from a cache, rehearsed on toy nets."""

from benchmarks.cached_training import main


def test_both_ways_are_measured(capsys):
    found = main(["--tiny", "--batch", "1", "--repeats", "1", "--seconds", "0.64"])
    assert {"VAE encoder", "CLAP audio tower", "step"} <= set(found["naive"])
    assert "waiting for data" in found["cached"] and "VAE encoder" not in found["cached"]
    assert "ratio of medians" in capsys.readouterr().out
