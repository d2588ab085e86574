"""From a clean latent back to the noise that would have made it."""

from itertools import pairwise

from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.steps import OnStep, level, sampler


@sampler
def ddim_invert(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    rounds: int = 0,
) -> Tensor:
    """DDIM run upwards: x (B, ...) at sigmas[-1] to x at sigmas[0], on the grid that ``ddim`` will come down by.

    Song et al. 2021 (DDIM) sec. 4.3.   Each step takes its slope where it starts; ``rounds`` repeats it with the slope
    where it ends, which is DDIM's own, until the way down undoes it (Pan et al. 2023, AIDI).
    """
    for i, (low, high) in enumerate(pairwise(sigmas.flip(0).tolist())):
        above = level(high, x)
        x0 = denoise(x, level(low, x)) if low > 0 else denoise(x, above)
        guess = x + (high - low) * (x - x0) / (low or high)
        for _ in range(rounds):
            x0 = denoise(guess, above)
            guess = x + (high - low) * (guess - x0) / high
        if on_step:
            on_step(i, high, guess, x0)
        x = guess
    return x
