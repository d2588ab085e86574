"""The same inputs through torchmetrics and torch-fidelity."""

import pytest
import torch

from audioldm.metrics.distances import coverage, frechet_rows, gaussian, mmd_squared
from audioldm.metrics.pairs import inception_score

pytestmark = pytest.mark.parity
fidelity = pytest.importorskip("torch_fidelity")
metrics = pytest.importorskip("torchmetrics")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    mixing = draw(64, 64, seed=2) / 8
    return draw(500, 64) @ mixing, draw(400, 64, seed=1) @ mixing * 1.1 + 0.2


def test_frechet_equals_torch_fidelity(sets) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    stats = [fid_features_to_statistics(part) for part in sets]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_rows(*sets) == pytest.approx(theirs, rel=1e-8)


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
