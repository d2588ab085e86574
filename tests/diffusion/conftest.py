"""Problems whose denoisers are known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from audioldm.diffusion.prediction import spread


@dataclass(frozen=True)
class Gaussian:
    """N(mean, diag(std^2)) in D dimensions; rows x (B, D)."""

    mean: Tensor
    std: Tensor

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        keep = self.std**2 / (self.std**2 + spread(sigma, x) ** 2)
        return self.mean + keep * (x - self.mean)

    def carried(self, x: Tensor, high: float, low: float) -> Tensor:
        """Where the probability-flow ODE takes x from level ``high`` to ``low``."""
        ratio = (self.std**2 + low**2) / (self.std**2 + high**2)
        return self.mean + (x - self.mean) * ratio.sqrt()

    def log_density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        return torch.distributions.Normal(self.mean, (self.std**2 + sigma**2).sqrt()).log_prob(x).sum(1)


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians of one std around the rows of means (K, D)."""

    means: Tensor
    std: float

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = self.std**2 + spread(sigma, x) ** 2
        nearness = x @ self.means.T - self.means.square().sum(1) / 2
        middle = (nearness / variance).softmax(1) @ self.means
        return torch.lerp(x, middle, 1 - self.std**2 / variance)

    def draw(self, count: int, generator: Generator) -> Tensor:
        which = torch.randint(len(self.means), (count,), generator=generator)
        return self.means[which] + self.std * torch.randn(
            count, self.means.shape[1], generator=generator, dtype=torch.float64
        )

    def mean(self) -> Tensor:
        return self.means.mean(0)

    def covariance(self) -> Tensor:
        return self.means.T.cov(correction=0) + self.std**2 * torch.eye(
            self.means.shape[1], dtype=torch.float64
        )


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


@pytest.fixture
def gaussian() -> Gaussian:
    return Gaussian(
        torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64),
        torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64),
    )


@pytest.fixture
def mixture() -> Mixture:
    return Mixture(torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64), 0.5)


@pytest.fixture
def normal(generator: Generator) -> Callable[..., Tensor]:
    """Float64 standard normal of a shape."""
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
