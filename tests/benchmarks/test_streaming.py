"""The benchmark of streaming, rehearsed on a few clips; litdata is compared only where it is installed."""

from benchmarks.streaming import main


def test_reading_and_going_on_are_measured(capsys):
    found = main(["--clips", "4", "--repeats", "1"])["WebDataset"]
    assert all(found[name] > 0 for name in ("write s", "bytes clips/s", "windows clips/s", "to go on s"))
    assert 1 < found["bytes over the FLACs"] < 1.2
    assert "windows clips/s" in capsys.readouterr().out
