"""What surrounds a step: schedule, clipping, accumulation, faster forms of the same nets, and the guard."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch

from audioldm.batch import LatentBatch
from audioldm.diffusion import objective
from audioldm.errors import AudioLDMError
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import build_unet, net_call
from audioldm.nets.vae import build_vae
from audioldm.training.distributed import blocks
from audioldm.training.optim import Optim, adamw
from audioldm.training.speed import Speed, recompute
from tests.training.test_modules import build_ldm, fit, latents


def gradients(module, batch: LatentBatch) -> dict[str, torch.Tensor]:
    module.zero_grad()
    module.losses(batch, torch.Generator().manual_seed(0), drop=0.1)["loss"].backward()
    return {name: p.grad.clone() for name, p in module.unet.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("speed", "tolerance"),
    [
        (Speed(checkpointing=True), 1e-6),
        (Speed(channels_last=True), 1e-5),  # other kernels sum in another order
        pytest.param(Speed(compile=True), 1e-5, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_faster_form_has_the_same_gradients_and_names(speed: Speed, tolerance: float):
    plain, fast = build_ldm(1), build_ldm(1)
    plain.unet.train()
    fast.unet.train()
    speed.apply(fast)
    assert list(plain.state_dict()) == list(fast.state_dict())
    a, b = gradients(plain, latents()), gradients(fast, latents())
    assert a.keys() == b.keys()
    scale = max(g.abs().max() for g in a.values())
    assert max((a[k] - b[k]).abs().max() for k in a) < tolerance * scale


def test_every_net_has_blocks_and_a_vocoder_says_what_it_cannot():
    unet = build_unet(channels=(16, 32), latent_channels=4, layers=1, head_channels=8, film_dim=8, groups=4)
    vae = build_vae(channels=(8, 8), latent_channels=4, layers=1, groups=4)
    vocoder = build_hifigan(channels=32, kernels=(3,), dilations=((1,),))
    assert [len(list(blocks(net))) for net in (unet, vae, vocoder)] == [5, 6, 5]
    with pytest.raises(AudioLDMError, match="cannot recompute"):
        recompute(vocoder)


def test_accumulated_batches_make_one_step():
    """Two halves of a batch, accumulated, move the weights as the whole batch does."""
    module = build_ldm(4)
    before = {k: v.clone() for k, v in module.unet.state_dict().items()}
    moved = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            moved.append(any(not torch.equal(before[k], v) for k, v in module.unet.state_dict().items()))

    module.configure_callbacks = lambda: [Watch()]
    fit(module, latents(), accumulate_grad_batches=4)
    assert moved == [False, False, False, True]

    whole, parts = build_ldm(1), build_ldm(1)
    steps = {}
    for net in (whole, parts):
        net.automatic_optimization = False  # as in a recorded step, and as each net of a GAN
        net.accumulate = 1 if net is whole else 2
        net.manual_backward = lambda loss: loss.backward(retain_graph=True)
        optimizer = torch.optim.SGD(net.unet.parameters(), lr=1.0)
        losses = losses_of(net)
        for part in [losses] if net is whole else losses.chunk(2):
            net.batch_count += 1
            net.descend(part.mean(), optimizer)
        steps[net] = net.unet.conv_in.weight.detach()
    assert torch.allclose(steps[whole], steps[parts], atol=1e-6)  # a mean of two means: float32 rounding


def losses_of(module) -> torch.Tensor:
    """Each sample's loss, with its graph."""
    z, t, noise, condition = module.draw(latents(), torch.Generator().manual_seed(1), drop=0.0)
    call = net_call(module.unet)
    return objective.loss(lambda x, s: call(x, s, condition), z, t, noise, module.schedule, "eps", "uniform")


def test_clipping_bounds_the_step():
    module = build_ldm(1)
    module.clip = 1e-3
    module.manual_backward = lambda loss: loss.backward()
    optimizer = torch.optim.SGD(module.unet.parameters(), lr=1.0)
    before = [p.detach().clone() for p in module.unet.parameters()]
    module.batch_count += 1
    norm = module.descend(module.losses(latents(), torch.Generator(), drop=0.0)["loss"], optimizer)
    assert float(norm) > 1e-2  # so it was clipped
    assert distance(module, before) == pytest.approx(1e-3, rel=1e-3)


def distance(module, before: list[torch.Tensor]) -> float:
    pairs = zip(module.unet.parameters(), before, strict=True)
    return float(torch.stack([(p - q).norm() for p, q in pairs]).norm().detach())


def test_lightning_clips_as_the_manual_step_does():
    """gradient_clip_val bounds the norm; the logged norm is the one from before."""
    module = build_ldm(1)
    module.configure_optimizers = lambda: torch.optim.SGD(module.unet.parameters(), lr=1.0)
    before = [p.detach().clone() for p in module.unet.parameters()]
    trainer = fit(module, latents(), gradient_clip_val=1e-3)
    assert distance(module, before) == pytest.approx(1e-3, rel=1e-3)
    assert float(trainer.callback_metrics["train/norm"]) > 1e-2


def test_schedules_and_their_refusals():
    about = {"warmup": 10, "steps": 1000}
    constant, cosine = (Optim(schedule=name, floor=0.2) for name in ("constant", "cosine"))
    assert constant.factor(500, **about) == 1.0 and constant.factor(1, **about) == 0.1
    assert cosine.factor(1, **about) == 0.1 and cosine.factor(10, **about) == 1.0
    falling = [cosine.factor(n, **about) for n in range(10, 1001)]
    assert falling == sorted(falling, reverse=True) and falling[-1] == pytest.approx(0.2)
    with pytest.raises(AudioLDMError, match="schedule='step'"):
        Optim(schedule="step")


def test_a_rate_that_is_a_tensor_stays_one():
    module, optimizer = build_ldm(10), adamw(torch.nn.Linear(2, 2).parameters(), 1e-3)
    module._trainer = SimpleNamespace(optimizers=[optimizer])
    held = optimizer.param_groups[0]["lr"] = torch.tensor(1e-3)
    module.on_train_start()
    assert optimizer.param_groups[0]["lr"] is held and float(held) == pytest.approx(
        2e-4
    )  # a fifth of the warm-up


def test_a_broken_loss_stops_before_it_reaches_a_weight():
    module, batch = build_ldm(5), latents()
    fit(build_ldm(1), batch)  # the same with whole data ends well
    before = {k: v.clone() for k, v in module.unet.state_dict().items()}
    batch.mean[0, 0, 0, 0] = float("nan")
    with pytest.raises(
        AudioLDMError, match=r"NaN or infinite at or shortly before batch 1\. The last good state"
    ):
        fit(module, batch)
    for key, value in before.items():
        assert torch.equal(module.unet.state_dict()[key], value), key
