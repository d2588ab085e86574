"""The same inputs through torchmetrics and torch-fidelity."""

import pytest
import torch
from torch import nn

from audioldm.metrics.coverage import coverage
from audioldm.metrics.divergence import inception_score, kl_of_logits
from audioldm.metrics.frechet import frechet_rows
from audioldm.metrics.kernel import gaussian, mmd_squared

pytestmark = pytest.mark.parity
fidelity = pytest.importorskip("torch_fidelity")
metrics = pytest.importorskip("torchmetrics")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    mixing = draw(64, 64, seed=2) / 8
    return draw(500, 64) @ mixing, draw(400, 64, seed=1) @ mixing * 1.1 + 0.2


class Same(nn.Module):
    """Embeddings pass through where torchmetrics expects an image network."""

    num_features = 64

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_frechet_equals_torchmetrics(sets) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    theirs = FrechetInceptionDistance(feature=Same(), input_img_size=(1, 8, 8)).set_dtype(torch.float64)
    theirs.update(sets[0], real=False)
    theirs.update(sets[1], real=True)
    # They take eigenvalues of a general product, in float64 too.
    assert frechet_rows(*sets) == pytest.approx(float(theirs.compute()), rel=1e-8)


def test_frechet_equals_torch_fidelity(sets) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    stats = [fid_features_to_statistics(part) for part in sets]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_rows(*sets) == pytest.approx(theirs, rel=1e-8)


def test_few_rows_equal_torch_fidelity(sets) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    few = [part[:40] for part in sets]
    stats = [fid_features_to_statistics(part) for part in few]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    # Their covariances have rank 39 of 64: square roots of eigenvalues that should be 0.
    assert frechet_rows(*few) == pytest.approx(theirs, abs=1e-4)


def test_mmd_equals_torch_fidelity(sets) -> None:
    from torch_fidelity.metric_kid import mmd2

    a, b = (part[:300] for part in sets)
    theirs = mmd2(*(gaussian(x, y, 9.0).numpy() for x, y in ((a, a), (a, b), (b, b))))
    assert mmd_squared(a, b, 9.0) == pytest.approx(float(theirs), rel=1e-9)


def test_inception_score_equals_torch_fidelity() -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * draw(250, 20)
    theirs = isc_features_to_metric(logits, splits=5, shuffle=False)
    mean, deviation = inception_score(logits, splits=5)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_precision_and_recall_equal_torch_fidelity(sets) -> None:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    made, real = sets[0][:300], sets[1][:200]
    precision, recall = calculate_precision_recall_full(made, real, neighborhood=3)
    ours = coverage(made, real, k=3)
    assert (ours["precision"], ours["recall"]) == pytest.approx((precision, recall), abs=1e-6)


def test_kl_equals_torchmetrics() -> None:
    from torchmetrics.functional import kl_divergence as theirs

    p, q = draw(30, 9).softmax(1), draw(30, 9, seed=1).softmax(1)
    assert float(kl_of_logits(p.log(), q.log()).mean()) == pytest.approx(float(theirs(p, q)), rel=1e-9)
