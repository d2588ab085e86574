"""``audioldm generate`` with the tiny model, for the tests of what it leaves and of what it refuses."""

import json

import numpy as np
import pytest
import soundfile

QUICK = ("--seconds", "0.2", "--steps", "2", "--set", "figure=false")


@pytest.fixture
def generate(command, request, tmp_path, capsys):
    """Run generate with the tiny model into ``tmp_path / "out"``; returns (exit code, stdout, stderr)."""

    def execute(*words, model=None, quick=QUICK):
        model = model or request.getfixturevalue("tiny_model")
        code = command("generate", "-m", model, "-o", tmp_path / "out", *quick, *words)
        return code, *capsys.readouterr()

    return execute


@pytest.fixture
def records(generate):
    """The sidecars that generate prints."""

    def execute(*words, **settings):
        code, printed, err = generate(*words, "--json", **settings)
        assert code == 0, err
        return json.loads(printed)

    return execute


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def refused(generate, out):
    """Exit code 2, one line on stderr that says ``expected``, nothing on stdout, nothing written."""

    def execute(words, expected, model="no/such/model", quick=()):
        code, printed, err = generate(*words, model=model, quick=quick)
        assert (code, printed) == (2, ""), err
        assert err.count("\n") == 1 and expected in err, err
        assert not out.exists()
        return err

    return execute


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What a terminal would have shown."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    return lambda: capsys.readouterr().err


@pytest.fixture
def sound(tmp_path):
    """A second of noise at another rate than the model's."""
    path = tmp_path / "My dog.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(44100), 44100)
    return path
