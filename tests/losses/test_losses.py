"""Known answers of every loss."""

import math

import pytest
import torch

from audioldm.losses import adversarial
from audioldm.losses.latent import cosine_distance, info_nce, kl_to_standard_normal
from audioldm.losses.spectral import mel_pyramid, multi_resolution_stft


def outputs(*values: float):
    """One discriminator a value: constant logits and one constant feature map."""
    return [
        (torch.full((2, 3), v, dtype=torch.float64), [torch.full((2, 4), v, dtype=torch.float64)])
        for v in values
    ]


def test_hinge_on_constants():
    assert adversarial.hinge_discriminator(outputs(2.0, 0.0), outputs(-2.0, 0.0)) == pytest.approx(
        (0 + 2) / 2
    )
    assert adversarial.hinge_generator(outputs(0.5, -1.5)) == pytest.approx((-0.5 + 1.5) / 2)


def test_least_squares_on_constants():
    assert adversarial.least_squares_discriminator(outputs(1.0, 3.0), outputs(0.0, 2.0)) == pytest.approx(
        0 + 8
    )
    assert adversarial.least_squares_generator(outputs(1.0, 0.0)) == pytest.approx(0 + 1)


def test_feature_matching_is_an_l1_that_teaches_only_the_fake():
    real, fake = outputs(1.0, 2.0), outputs(0.0, 5.0)
    for _, features in (*real, *fake):
        features[0].requires_grad_(True)
    loss = adversarial.feature_matching(real, fake)
    assert loss.item() == pytest.approx(1 + 3)
    loss.backward()
    assert all(features[0].grad is None for _, features in real)
    assert all(features[0].grad is not None for _, features in fake)


def test_kl_equals_torch_distributions_and_is_a_mean():
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(3, 4, 5, 6, generator=g, dtype=torch.float64)
    std = torch.rand(3, 4, 5, 6, generator=g, dtype=torch.float64) + 0.1
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).flatten(1).mean(1)
    assert torch.allclose(kl_to_standard_normal(mean, std), theirs, rtol=1e-12)
    doubled = kl_to_standard_normal(mean.repeat(1, 1, 2, 1), std.repeat(1, 1, 2, 1))
    assert torch.allclose(doubled, theirs)  # twice the length, the same number


def test_spectral_distances_are_zero_only_for_equal_sounds():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 8000, generator=g), torch.randn(2, 1, 8000, generator=g)
    assert multi_resolution_stft(a, a).item() == 0
    assert multi_resolution_stft(a, b) > multi_resolution_stft(a, a + 0.01 * b) > 0
    # half the amplitude: convergence |0.5 S| / |S| = 0.5 and log distance ln 2, at every size
    assert multi_resolution_stft(a / 2, a).item() == pytest.approx(0.5 + math.log(2), rel=1e-4)
    mel = torch.randn(2, 1, 16, 16, generator=g)
    assert mel_pyramid(mel, mel).item() == 0
    assert mel_pyramid(mel + 1, mel).item() == pytest.approx(1)  # an offset is seen at every level


def test_info_nce_bounds_and_duplicates():
    eye = torch.eye(4, dtype=torch.float64)
    assert info_nce(eye, eye, 100.0).item() == pytest.approx(0, abs=1e-12)
    assert info_nce(eye, eye.flip(0), 0.0).item() == pytest.approx(math.log(4))
    twice = eye[[0, 0, 1, 2]]
    same = (twice @ twice.T) > 0.5
    # two equal captions share the probability evenly: the loss floor is ln 2 on two of four rows
    assert info_nce(twice, twice, 100.0, same=same).item() == pytest.approx(math.log(2) / 2, abs=1e-9)


def test_cosine_distance_of_parallel_and_opposite_rows():
    a = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert cosine_distance(a, 5 * a).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distance(a, -a).item() == pytest.approx(2)
