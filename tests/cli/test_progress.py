"""The bar of a long run never says that more is done than there is."""

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
