"""Recorded training steps do what plain ones do."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import DataLoader, Dataset

from audioldm.batch import Batch, Condition, LatentBatch
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec
from audioldm.training.callbacks import StopAfter
from audioldm.training.speed import RecordedStep, record
from tests.training.test_modules import build_ldm, fit, vae_training, vocoder_training

BATCHES = 12  # three as they are, then a recording and its replays, without judges and again with them
TURN = 5


class Fixed(Dataset):
    """Batches that follow from their number."""

    def __init__(self, make) -> None:
        self.make = make

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int):
        return self.make(torch.Generator().manual_seed(index))


def waves(rng: torch.Generator) -> Batch:
    return Batch(0.3 * torch.randn(4, 1, 10240, generator=rng), ["noise"] * 4, ["a", "b", "c", "d"])


def latents(rng: torch.Generator) -> LatentBatch:
    mean, std = torch.randn(2, 8, 4, 16, 8, generator=rng)
    text, audio = torch.randn(2, 8, 8, generator=rng)
    return LatentBatch(mean, std.abs(), text, audio)


KINDS = {
    "vocoder": (partial(vocoder_training, AudioSpec(), adversarial_start=TURN), waves),
    "vae": (partial(vae_training, AudioSpec(), adversarial_start=TURN), waves),
    "unet": (build_ldm, latents),
}


def trained(
    build, make, *, graph: bool, accelerator: str, precision: str = "32-true"
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    module = build(batches=BATCHES)
    if graph:
        record(module)
    trainer = L.Trainer(
        accelerator=accelerator, devices=1, precision=precision, max_steps=-1, max_epochs=1, logger=False,
        enable_checkpointing=False, callbacks=[StopAfter()], enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_val_batches=1, val_check_interval=4,
    )  # fmt: skip
    # a validation is no step, recorded or not
    trainer.fit(module, DataLoader(Fixed(make), batch_size=None), DataLoader(Fixed(make), batch_size=None))
    assert module.batch_count == BATCHES
    # Lightning hears of every step, recorded or not: its checkpoints wait for a new one
    assert trainer.global_step == BATCHES + (BATCHES - TURN if hasattr(module, "discriminator") else 0)
    name, net = next(iter(module.components().items()))
    if graph and accelerator == "gpu":
        assert len(module.step.recordings) == (1 if name == "unet" else 2)
    return {k: v.cpu() for k, v in net.state_dict().items()}


def far(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Relative distance of two sets of weights."""
    left, right = (torch.cat([v.flatten().double() for v in part.values()]) for part in (a, b))
    return float((left - right).norm() / right.norm())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_on_a_gpu_train_to_the_same_weights(kind: str, precision: str):
    build, make = KINDS[kind]
    plain, again, graph = (
        trained(build, make, graph=g, accelerator="gpu", precision=precision) for g in (False, False, True)
    )
    torch.manual_seed(0)
    start = {k: v.cpu() for k, v in next(iter(build(batches=1).components().values())).state_dict().items()}
    moved = far(plain, start)
    # Adam turns roundings of tiny gradients into whole steps: a replay may differ as two plain runs do, and a little
    assert far(graph, plain) < max(0.1 * moved, 3 * far(again, plain))


def test_on_a_cpu_the_switch_changes_nothing():
    plain, graph = (trained(build_ldm, latents, graph=g, accelerator="cpu") for g in (False, True))
    assert all(torch.equal(graph[k], v) for k, v in plain.items())
    step = RecordedStep(lambda x, flag: {"y": x + 1 if flag else x})
    assert step(torch.ones(2), flag=True)["y"].tolist() == [2, 2]
    assert step(torch.ones(2), flag=False)["y"].tolist() == [1, 1] and not step.recordings


def test_an_absent_part_of_a_condition_stays_absent():
    """Its tensors are the leaves that a recording reads; what is None is part of its form."""
    tokens, mask = torch.ones(2, 3, 4), torch.ones(2, 3)
    leaves, spec = tree_flatten(((Condition(tokens=tokens, mask=mask),), {}))
    again = tree_unflatten(leaves, spec)[0][0]
    assert again.film is None and again.tokens is tokens and again.mask is mask
    film = Condition(film=torch.ones(2, 4))
    assert repr(tree_flatten(((film,), {}))[1]) == repr(spec)
    assert [leaf is None for leaf in leaves] != [leaf is None for leaf in tree_flatten(((film,), {}))[0]]


def test_a_recorded_step_refuses_halves():
    module = build_ldm(4)
    record(module)
    module.accumulate = 2
    with pytest.raises(AudioLDMError, match="whole"):
        fit(module, None)
