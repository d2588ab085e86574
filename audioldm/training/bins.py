"""The training loss by range of timesteps: a mean over the last batches, since one batch meets few timesteps."""

import torch
from torch import Tensor


class LossBins:
    """Sums and counts of losses in ``count`` equal ranges of t, read every ``window`` batches."""

    def __init__(self, count: int, window: int = 20) -> None:
        self.count, self.window = count, window
        self.total, self.number = torch.zeros(2, count, dtype=torch.float64)

    def add(self, losses: Tensor, t: Tensor, length: float) -> None:
        """Losses (B,) at timesteps t (B,) in [0, length)."""
        self.total, self.number = self.total.to(losses.device), self.number.to(losses.device)
        index = (t.double() * self.count / length).long().clamp(0, self.count - 1)
        self.total = self.total.index_add(0, index, losses.detach().double())
        self.number = self.number.index_add(0, index, torch.ones_like(losses, dtype=torch.float64))

    def take(self) -> dict[int, Tensor]:
        """The mean of each range that was met since the last time; begins anew.

        >>> bins = LossBins(2)
        >>> bins.add(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 10, 999]), 1000)
        >>> {i: float(mean) for i, mean in bins.take().items()}
        {0: 2.0, 1: 5.0}
        """
        found = {i: self.total[i] / self.number[i] for i in range(self.count) if self.number[i] > 0}
        self.total, self.number = torch.zeros_like(self.total), torch.zeros_like(self.number)
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Into the checkpoint, so that a resumed run reports the same means."""
        return {"total": self.total, "number": self.number}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Out of the checkpoint."""
        self.total, self.number = state["total"], state["number"]
