"""How different sounds are from one another and from those that were learned from.   n rows, D width."""

import torch
from torch import Tensor


def mean_pairwise_cosine_distance(rows: Tensor) -> float:
    """1 - cos, averaged over all pairs of different rows (n, D), n >= 2.

    >>> mean_pairwise_cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    1.0
    """
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"rows has shape {tuple(rows.shape)}; give (n, D) with n of 2 or more.")
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    n = len(unit)
    return float(1 - (unit.sum(dim=0).square().sum() - n) / (n * (n - 1)))


def standardised(rows: Tensor) -> Tensor:
    """Rows (..., D) with mean 0 and length 1, so that a product is Pearson's correlation; a constant row becomes 0."""
    centred = rows - rows.mean(dim=-1, keepdim=True)
    length = centred.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, centred / length.clamp_min(1e-6), torch.zeros_like(centred))


def shifted_correlation(image: Tensor, wide: Tensor) -> Tensor:
    """Pearson's correlation of images (n, T, F) with every window of wide ones (m, T + S, F): (n, m, S + 1).

    >>> wide = torch.arange(12.0).sin().reshape(1, 6, 2)
    >>> shifted_correlation(wide[:, 1:5], wide)[0, 0].argmax().item()
    1
    """
    frames = image.shape[1]
    flat = standardised(image.flatten(1))
    windows = [
        flat @ standardised(wide[:, start : start + frames].flatten(1)).T
        for start in range(wide.shape[1] - frames + 1)
    ]
    return torch.stack(windows, dim=-1)


def sounding_correlation(image: Tensor, wide: Tensor) -> float:
    """The best of the same for one image (T, F) and one wide (T + S, F), over frames in which either one sounds.

    A frame sounds if anything in it is above its picture's minimum.   Frames in which both are silent would make any
    two short sounds alike.

    >>> sound = torch.tensor([[0.0, 0.0], [1.0, 3.0], [0.0, 0.0]])
    >>> round(sounding_correlation(sound, torch.nn.functional.pad(sound, (0, 0, 2, 0))), 6)
    1.0
    """
    frames = image.shape[0]
    sounds, wide_sounds = (part.amax(dim=1) > part.min() + 1e-3 for part in (image, wide))
    best = -1.0
    for start in range(wide.shape[0] - frames + 1):
        part = slice(start, start + frames)
        kept = sounds | wide_sounds[part]
        if bool(kept.any()):
            a, b = standardised(image[kept].flatten()), standardised(wide[part][kept].flatten())
            best = max(best, float(a @ b))
    return best
