"""Controls from sounds and from drawings, and what is refused."""

import pytest
import torch

from audioldm.control.maps import MapSource
from audioldm.datasets.decode import encode
from audioldm.errors import AudioLDMError
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]


def drawn(tmp_path, text, name="loudness"):
    path = tmp_path / "curve.csv"
    path.write_text(text)
    return MapSource(name, path).curve(SPEC)


def test_lines_between_points(tmp_path):
    curve = drawn(tmp_path, "seconds,dB\n0,-40\n1,-20\n2,-20\n")
    assert len(curve) == 200
    assert curve[0].item() == pytest.approx(-40 + 20 * 0.005) and curve[50].item() == pytest.approx(-29.9)
    assert (curve[100:] == -20).all()


def test_no_pitch_is_a_hole_not_a_siren(tmp_path):
    curve = drawn(tmp_path, "0,220\n1,0\n2,440\n3,440\n", "pitch")
    assert (curve[:100] == 220).all() and (curve[100:200] == 0).all() and (curve[200:] == 440).all()


def test_onsets_are_points(tmp_path):
    assert drawn(tmp_path, "0.5\n1.0,0.4\n", "onset").nonzero()[:, 0].tolist() == [50, 99]


REFUSED = {
    "no points": ("seconds,dB\n", "has no points"),
    "words": ("0,-20\nsoon,-10\n", "line 2: 'soon,-10' is no seconds,value"),
    "falling": ("0,-20\n2,-20\n1,-20\n", "do not rise"),
    "out of range": ("0,-20\n1,900\n", "line 2: loudness of 900 dB at 1 s cannot be"),
    "a huge cell": ("0,-20\n" + 140_000 * "1" + ",-20\n", "line 2: no cells between separators"),
    "an open quotation": ('0,-20\n"1,-20\n', "line 2: a quotation mark is not closed"),
    "one column": ("0,-20\n1\n", "is no seconds,value"),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=REFUSED)
def test_bad_drawings_are_named(tmp_path, text, told):
    with pytest.raises(AudioLDMError, match=told):
        drawn(tmp_path, text)


def test_a_sound_is_heard_at_one_level_and_silence_is_refused(tmp_path):
    tone = torch.sin(2 * torch.pi * 220 * torch.arange(16000) / 16000)
    for name, gain in (("loud", 0.9), ("soft", 0.05)):
        encode(tmp_path / f"{name}.wav", gain * tone, 16000)
    loud, soft = (MapSource("loudness", tmp_path / f"{name}.wav").curve(SPEC) for name in ("loud", "soft"))
    torch.testing.assert_close(loud, soft, atol=0.1, rtol=0)  # 16 bits at 0.05 leave 0.01 dB
    encode(tmp_path / "silent.wav", torch.zeros(16000), 16000)
    with pytest.raises(AudioLDMError, match="is silent"):
        MapSource("loudness", tmp_path / "silent.wav").curve(SPEC)
    noise = 0.3 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    encode(tmp_path / "hit.wav", noise * torch.exp(-40 * torch.arange(16000) / 16000), 16000)
    with pytest.raises(AudioLDMError, match="it has no pitch"):
        MapSource("pitch", tmp_path / "hit.wav").curve(SPEC)


@pytest.mark.parametrize(
    "text", ["loudness", "=a.wav", "loudness=", "speed=a.wav", "loudness=a.wav:-1", "pitch=a:nan"]
)
def test_what_is_no_control_is_refused(text):
    with pytest.raises(AudioLDMError):
        MapSource.parse(text)
    assert MapSource.parse("pitch=C:/a.wav").path.name == "a.wav"


def test_a_drawing_may_have_the_separators_of_other_countries(tmp_path):
    plain = drawn(tmp_path, "seconds,dB\n0,-40\n1.5,-20\n")
    for text in (
        "seconds;dB\n0;-40\n1,5;-20\n",
        "sep=;\nseconds;dB\r\n0;-40\r\n1,5;-20\r\n",
        "0\t-40\r1.5\t-20\r",
    ):
        assert torch.equal(drawn(tmp_path, text), plain)
    (tmp_path / "curve.csv").write_bytes(b"\xef\xbb\xbf0,-40\n1.5,-20\n")
    assert torch.equal(MapSource("loudness", tmp_path / "curve.csv").curve(SPEC), plain)
