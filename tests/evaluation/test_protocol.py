"""Files of protocols that hold what no protocol does."""

from pathlib import Path

import pytest

from audioldm.errors import AudioLDMError
from audioldm.evaluation.protocol import Protocol, read


@pytest.mark.parametrize("seconds", [0, 1e-300, -1, 10**400, float("nan"), float("inf"), "10", [10.0], 1e308])
def test_a_length_that_no_sound_has_is_refused(tmp_path: Path, seconds) -> None:
    Protocol("p", "about", "first", seconds, "peak", ("0" * 20,)).write(tmp_path / "p.json")
    with pytest.raises(AudioLDMError, match=r"p\.json is no protocol"):
        read(tmp_path / "p.json")


@pytest.mark.parametrize("seconds", [None, 1, 10.24])
def test_what_was_written_is_read(tmp_path: Path, seconds) -> None:
    protocol = Protocol("p", "about", "first", seconds, "peak", ("0" * 20, "1" * 20))
    protocol.write(tmp_path / "p.json")
    assert read(tmp_path / "p.json") == protocol
