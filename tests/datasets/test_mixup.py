"""Two sounds in one: the ratio that is heard is the ratio that was drawn, and both captions are said."""

import pytest
import torch
from sounds import save, sine

from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.draws import generator
from audioldm.datasets.manifest import Row
from audioldm.datasets.mixup import level_db, mixed, share
from audioldm.errors import AudioLDMError
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
def test_the_ratio_holds_whatever_the_levels(ratio, gain):
    first = torch.from_numpy(sine(1.0, 300.0)).double()
    second = gain * torch.from_numpy(sine(1.0, 3000.0)).double()
    spectrum = torch.fft.rfft(mixed(first, second, ratio)).abs()
    # amplitudes of the two sines: p a1 : (1 - p) a2 = r : 1 - r by Tokozume's eq. 2
    assert float(spectrum[300] / (spectrum[300] + spectrum[3000])) == pytest.approx(ratio, abs=1e-6)


def test_equal_sounds_keep_their_power():
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 160000, generator=rng, dtype=torch.float64)
    # independent, of one level: sqrt(p^2 + (1-p)^2) makes the sum's power that of one; 160,000 samples give 0.05 dB
    assert level_db(mixed(first, second, 0.3)) == pytest.approx(level_db(first), abs=0.05)


def test_silence_mixes_to_something_finite():
    out = mixed(torch.zeros(10), torch.ones(10), 0.5)
    assert torch.isfinite(out).all()
    with pytest.raises(ValueError, match="ratio=1"):
        mixed(torch.ones(2), torch.ones(2), 1)


def test_lambda_is_beta_5_5():
    values = torch.tensor([share(generator(0, 0, i)) for i in range(4000)], dtype=torch.float64)
    # Beta(5, 5): mean 1/2, variance 1/44; the mean of 4000 deviates by 0.0024, the variance by 2.5 %
    assert float(values.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(values.var()) == pytest.approx(1 / 44, rel=0.1)
    assert share(generator(1, 2, 3)) == share(generator(1, 2, 3))


@pytest.fixture
def rows(tmp_path):
    made = []
    for i, (caption, hertz) in enumerate((("a low hum.", 300), ("a whistle", 3000), ("a beep", 1200))):
        made.append(Row(str(save(tmp_path / f"{i}.wav", sine(1.0, hertz))), (caption,), seconds=1.0))
    return made


def test_both_captions_are_of_what_is_heard(rows):
    data = AudioText(rows, SPEC, 1.0, seed=0, mixup=0.5)
    bins = {"a low hum": 300, "a whistle": 3000, "a beep": 1200}
    found = 0
    for epoch in range(40):
        for index in range(3):
            wave, caption, _ = data[(index, epoch)]
            spectrum = torch.fft.rfft(wave[0]).abs()
            heard = {name for name, place in bins.items() if spectrum[place] > 0.05 * spectrum.max()}
            assert heard == {name for name in bins if name in caption}
            found += len(heard) - 1
            assert torch.equal(wave, data[(index, epoch)][0])
    # 120 items, half mixed, two thirds of those with another row: 40 expected, deviation 5.2
    assert 20 < found < 60


def test_without_mixup_nothing_changes(rows):
    plain, off = AudioText(rows, SPEC, 0.5, seed=3), AudioText(rows, SPEC, 0.5, seed=3, mixup=0.0)
    assert all(torch.equal(plain[(i, 4)][0], off[(i, 4)][0]) for i in range(3))
    mixing = AudioText(rows, SPEC, 0.5, seed=3, mixup=1.0)
    alone = next((i, e) for e in range(30) for i in range(3) if mixing.partner(i, e) is None)
    assert torch.equal(mixing[alone][0], plain[alone][0]), "a row drawn with itself stays as it is"
    with pytest.raises(AudioLDMError, match="mixup=2"):
        AudioText(rows, SPEC, 0.5, seed=0, mixup=2)
