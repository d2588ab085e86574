"""Overlapped windows: they cover everything, change nothing where they agree, and close circles."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from audioldm.diffusion import windows
from audioldm.diffusion.prediction import spread


def pointwise(x, sigma):
    return x.sin() / (1 + spread(sigma, x))


def smooth(x, sigma):
    """Looks at neighbours, and at zeros beyond the ends: like a U-Net, it is less sure at the edges of what it sees."""
    return torch.nn.functional.avg_pool2d(x, (5, 1), stride=1, padding=(2, 0))


def noise(frames, channels=2, seed=0):
    return torch.randn(1, channels, frames, 3, generator=Generator().manual_seed(seed), dtype=torch.float64)


ONE = torch.ones(1)


@given(
    length=st.integers(1, 200),
    window=st.integers(1, 40),
    stride=st.integers(1, 40),
    circular=st.booleans(),
)
def test_starts_cover_every_frame(length, window, stride, circular):
    stride = min(stride, window)
    if circular and window > length:
        with pytest.raises(ValueError, match="circle"):
            windows.starts(length, window, stride, circular=True)
        return
    begins = windows.starts(length, window, stride, circular=circular)
    covered = {(begin + k) % length for begin in begins for k in range(min(window, length))}
    assert covered == set(range(length))
    assert begins == sorted(begins)
    gaps = [b - a for a, b in pairwise(begins)]
    assert all(gap <= stride for gap in gaps)
    if not circular:
        assert all(0 <= begin <= max(0, length - window) for begin in begins)


@pytest.mark.parametrize("length", [3, 8, 9, 17, 40])
@pytest.mark.parametrize("circular", [False, True])
def test_where_windows_agree_nothing_changes(length, circular):
    x, sigma = noise(length), torch.tensor([0.7]).double()
    wide = windows.windowed([pointwise], torch.ones(1, length), window=min(8, length), circular=circular)
    assert torch.allclose(wide(x, sigma), pointwise(x, sigma), atol=1e-12)


def test_one_window_is_the_denoiser_bit_by_bit():
    x, sigma = noise(8), torch.tensor([0.7]).double()
    assert torch.equal(windows.windowed([smooth], torch.ones(1, 8), window=8)(x, sigma), smooth(x, sigma))


def test_a_loop_has_no_edge():
    x, sigma = noise(24), torch.tensor([0.7]).double()
    loop = windows.windowed([smooth], torch.ones(1, 24), window=8, circular=True)
    # windows begin at every fourth frame: a turn of the circle by four frames turns the answer
    assert torch.allclose(loop(x.roll(4, 2), sigma), loop(x, sigma).roll(4, 2), atol=1e-12)
    straight = windows.windowed([smooth], torch.ones(1, 24), window=8)
    assert not torch.allclose(straight(x.roll(4, 2), sigma), straight(x, sigma).roll(4, 2), atol=1e-3)


def test_memory_is_one_window_however_long_the_sound():
    seen = []

    def spy(x, sigma):
        seen.append(tuple(x.shape))
        return pointwise(x, sigma)

    for length in (64, 640):
        windows.windowed([spy], torch.ones(1, length), window=16)(noise(length), ONE.double())
    assert set(seen) == {(1, 2, 16, 3)}


def test_every_part_counts_where_its_share_is_and_is_called_nowhere_else():
    calls = {0: [], 1: []}

    def part(value):
        def denoise(x, sigma):
            calls[value].append(x[0, 0, 0, 0].item())
            return torch.full_like(x, float(value))

        return denoise

    shares = windows.shares_of([(0, 20), (20, 40)], 40, 1.0, 4.0)
    x = torch.arange(40.0)[None, None, :, None].expand(1, 1, 40, 1)
    made = windows.windowed([part(0), part(1)], shares, window=8)(x, ONE)
    assert torch.allclose(made[0, 0, :, 0], shares[1], atol=1e-6)
    assert max(calls[0]) < 22 and min(calls[1]) > 9, "windows without a share do not call the part"


def test_shares_sum_to_one_and_fade_around_the_border():
    shares = windows.shares_of([(0, 5), (5, 6), (6, 12)], 120, 0.1, 0.5)
    assert torch.allclose(shares.sum(0), torch.ones(120))
    assert bool((shares >= 0).all())
    assert shares[0, :47].min() == 1 and shares[2, 63:].min() == 1
    assert shares[0, 49] > 0.5 > shares[0, 50]


def test_blend_of_longer_parts_meets_without_a_step():
    def part(begin):  # each window of 4 frames gives 12 samples of one straight line
        return (torch.arange(12.0) + 3 * begin)[None]

    line = windows.blend(10, windows.starts(10, 4, 3), windows.plateau(12), part, dim=-1, scale=3)
    assert torch.allclose(line, torch.arange(30.0)[None], atol=1e-4)
