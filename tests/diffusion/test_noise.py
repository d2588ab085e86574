import torch

from audioldm.diffusion import noise as N


def test_a_sample_has_the_same_noise_alone_and_in_a_batch():
    batch = N.PerSample([5, 6, 7], (2, 3))
    alone = N.PerSample([6], (2, 3))
    for _ in range(3):
        assert torch.equal(batch()[1], alone()[0])


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    N.PerSample([1], (4,))()
    assert torch.equal(before, torch.random.get_rng_state())
