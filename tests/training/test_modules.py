"""Each shell learns: overfitting one batch, with gradients only where they belong."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from audioldm.batch import LatentBatch
from audioldm.diffusion.schedule import audioldm
from audioldm.losses.adversarial import hinge_discriminator
from audioldm.nets.clap import build_small_clap, train_tokenizer
from audioldm.nets.discriminators import PatchDiscriminator, WaveDiscriminator
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae
from audioldm.training.callbacks import StopAfter
from audioldm.training.clap import ClapTraining, Teachers
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.optim import Optim, adamw
from audioldm.training.vae import VaeTraining
from audioldm.training.vocoder import VocoderTraining


class Repeat(Dataset):
    """One ready batch, again and again."""

    def __init__(self, batch, length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        return self.batch


def fit(module, batch) -> None:
    trainer = L.Trainer(
        accelerator="cpu", max_steps=-1, max_epochs=1, logger=False, enable_checkpointing=False,
        callbacks=[StopAfter()], enable_progress_bar=False, enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Repeat(batch, module.batches), batch_size=None))
    assert int(module.batch_count) == module.batches


def test_vae_overfits_one_batch(batch, spec):
    module = VaeTraining(
        build_vae(channels=(8, 16), latent_channels=4, layers=1, groups=4), spec, lr=3e-3, batches=60, warmup=5,
        kl_weight=1e-4, discriminator=PatchDiscriminator(width=4, depth=2), adversarial_start=50,
    )  # fmt: skip
    mel = module.to_mel(batch)
    noise = module.noise(mel, module.validation_generator(0))
    before = module.losses(mel, noise)[0]["reconstruction"].item()
    fit(module, batch)
    after = module.losses(mel, noise)[0]["reconstruction"].item()
    assert after < before / 3  # 60 steps at toy width; a net that ignores its input stays above half


def test_vocoder_overfits_one_batch(batch, spec):
    module = VocoderTraining(
        build_hifigan(channels=64, kernels=(3,), dilations=((1, 3),), mel_mean=-4.6, mel_std=2.7), spec, lr=3e-3,
        batches=60, warmup=5, adversarial_start=55,
        discriminator=WaveDiscriminator(periods=(2, 3), resolutions=(512,), period_width=4, resolution_width=4),
    )  # fmt: skip
    none = torch.zeros(len(batch.wave), dtype=torch.bool)
    before = module.terms(batch.wave, none)[0]["mel"].item()
    fit(module, batch)
    after = module.terms(batch.wave, none)[0]["mel"].item()
    assert after < before / 2  # starts near silence, must find the spectrum


def test_vocoder_learns_from_reconstructed_mels_and_leaves_the_autoencoder_alone(batch, spec):
    vae = build_vae(channels=(8, 8), latent_channels=4, layers=1, groups=4)
    kept = {k: v.clone() for k, v in vae.state_dict().items()}
    vocoder = build_hifigan(channels=64, kernels=(3,), dilations=((1,),))
    mixed, own = (VocoderTraining(vocoder, spec, vae=vae, vae_prob=p, batches=2) for p in (1.0, 0.0))
    mel = own.mel(batch.wave)[..., :33, :]  # one frame more than the stride allows stays as it is
    mels, same = (
        net.input_mels(mel, net.bernoulli(net.vae_prob, len(mel), net.validation_generator(0)))
        for net in (mixed, own)
    )
    assert torch.equal(same, mel)
    assert torch.equal(mels[..., 32:, :], mel[..., 32:, :]) and not torch.allclose(
        mels[..., :32, :], mel[..., :32, :]
    )
    fit(mixed, batch)
    assert all(torch.equal(v, kept[k]) for k, v in vae.state_dict().items())


@pytest.mark.parametrize("kind", ["vae", "vocoder"])
def test_each_side_of_the_game_leaves_the_other_without_gradients(kind: str, batch, spec):
    if kind == "vae":
        vae = build_vae(channels=(8, 8), latent_channels=4, layers=1, groups=4)
        module = VaeTraining(vae, spec, discriminator=PatchDiscriminator(width=4, depth=2), batches=2)
        real = module.to_mel(batch)
        more = module.noise(real, module.validation_generator(0))
        made, generator = module.losses(real, more)[1], vae
    else:
        vocoder = build_hifigan(channels=32, kernels=(3,), dilations=((1,),))
        judges = WaveDiscriminator(periods=(2,), resolutions=(512,), period_width=4, resolution_width=4)
        module = VocoderTraining(vocoder, spec, discriminator=judges, batches=2)
        real, more = batch.wave, torch.zeros(len(batch.wave), dtype=torch.bool)
        made, generator = module.terms(real, more)[1], vocoder
    judges = module.discriminator
    if kind == "vae":
        loss = hinge_discriminator(judges(real), judges(made.detach()))
    else:
        loss = module.losses.of_discriminator(judges, made, real)
    own = torch.autograd.grad(loss, list(judges.parameters()))

    optimizers = [torch.optim.SGD(net.parameters(), lr=0.0) for net in (generator, judges)]
    module.each_optimizer = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    module.batch_count = 1
    module.step(real, more, adversarial=True)
    assert all(p.requires_grad for p in judges.parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(judges.parameters(), own, strict=True))
    assert all(p.grad is not None for p in generator.parameters())


def test_clap_overfits_one_batch_and_follows_its_teachers(batch):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(batch.captions, size=100)
    clap = build_small_clap(tokenizer, dim=16, width=16, layers=1, widths=(8, 16))
    audio = {key: torch.randn(12) for key in batch.ids[:3]}
    text = {caption: torch.randn(8) for caption in batch.captions}
    teachers = Teachers(16, audio=audio, text=text)
    module = ClapTraining(clap, teachers=teachers, extra_texts=2, lr=3e-3, batches=60, warmup=5)
    before = {k: v.item() for k, v in module.terms(batch)[0].items()}
    fit(module, batch)
    after = {k: v.item() for k, v in module.terms(batch)[0].items()}
    assert set(after) == {"contrast", "teacher_audio", "teacher_text"}
    assert after["contrast"] < before["contrast"] / 5
    assert after["teacher_audio"] < before["teacher_audio"] / 2
    unknown = Teachers(16, audio=audio).distance("audio", torch.randn(2, 16), ["x", "y"])
    assert unknown.item() == 0


def latents(n: int = 4) -> LatentBatch:
    g = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(n, 8, generator=g), dim=-1)
    return LatentBatch(
        torch.randn(n, 4, 16, 8, generator=g), torch.full((n, 4, 16, 8), 0.01), unit, unit.roll(1, 0)
    )


def build_ldm(batches: int, **settings) -> LatentDiffusion:
    torch.manual_seed(0)
    unet = build_unet(channels=(16, 32), latent_channels=4, layers=1, head_channels=8, film_dim=8, groups=4)
    null = torch.nn.functional.normalize(torch.ones(8), dim=-1)
    return LatentDiffusion(
        unet, audioldm(), scaling_factor=1.0, empty=null, lr=3e-3, batches=batches, warmup=5, **settings
    )


@pytest.mark.parametrize(("prediction", "share"), [("eps", 0.5), ("v", 0.85)])
def test_latent_diffusion_learns_one_batch(prediction: str, share: float):
    """Noise is soon recognised; v at high noise is the sound itself, which 120 steps only begin to learn by heart."""
    module, batch = build_ldm(120, prediction=prediction, text_prob=0.5), latents()

    def validated() -> float:
        with torch.no_grad():
            return sum(
                module.losses(batch, module.validation_generator(i), drop=0.0)["loss"].item()
                for i in range(8)
            )

    before = validated()
    fit(module, batch)
    assert validated() < share * before  # predicting zero keeps it where it was


def test_dropping_happens_in_training_only():
    module, batch = build_ldm(1, text_prob=1.0), latents()
    seen = []
    module.unet.register_forward_hook(
        lambda net, args, kwargs, out: seen.append(kwargs["class_labels"]), with_kwargs=True
    )
    g = torch.Generator().manual_seed(0)
    module.losses(batch, g, drop=1.0)
    module.losses(batch, g, drop=0.0)
    assert torch.equal(seen[0], module.empty[None].repeat(4, 1))
    assert torch.equal(seen[1], batch.text)


def test_the_rate_warms_up_and_falls():
    optimizer = adamw(torch.nn.Linear(2, 2).parameters(), 1.0)
    factor = Optim().rates(optimizer, warmup=10, steps=100).lr_lambdas[0]
    rates = [factor(n) for n in range(1, 101)]
    assert rates[0] == 0.1 and rates[:10] == sorted(rates[:10]) and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1)
