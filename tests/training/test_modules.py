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
from audioldm.signal.level import normalise_peak
from audioldm.training.callbacks import StopAfter
from audioldm.training.clap import ClapTraining, Teachers
from audioldm.training.latent_diffusion import LatentDiffusion
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


def fit(module, batch, **settings) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu", max_steps=-1, max_epochs=1, logger=False, enable_checkpointing=False,
        callbacks=[StopAfter()], enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Repeat(batch, module.batches), batch_size=None))
    assert int(module.batch_count) == module.batches
    return trainer


def vae_training(spec, **more) -> VaeTraining:
    net = build_vae(channels=(8, 16), latent_channels=4, layers=1, groups=4)
    return VaeTraining(net, spec, discriminator=PatchDiscriminator(width=4, depth=2), **more)


def vocoder_training(spec, **more) -> VocoderTraining:
    net = build_hifigan(channels=32, kernels=(3,), dilations=((1, 3),), mel_mean=-4.6, mel_std=2.7)
    judges = WaveDiscriminator(periods=(2, 3), resolutions=(512,), period_width=4, resolution_width=4)
    return VocoderTraining(net, spec, discriminator=judges, **more)


LEARNS = {"lr": 3e-3, "batches": 60, "warmup": 5, "adversarial_start": 55}


def test_vae_overfits_one_batch(batch, spec):
    module = vae_training(spec, kl_weight=1e-4, **LEARNS)
    mel = module.mel(normalise_peak(batch.wave))
    noise = module.noise(mel, module.validation_generator(0))
    before = module.losses(mel, noise)[0]["reconstruction"].item()
    fit(module, batch)
    after = module.losses(mel, noise)[0]["reconstruction"].item()
    assert after < before / 3  # 60 steps at toy width; a net that ignores its input stays above half


def test_vocoder_overfits_one_batch(batch, spec):
    module = vocoder_training(spec, **LEARNS)
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
    module = vae_training(spec, batches=2) if kind == "vae" else vocoder_training(spec, batches=2)
    judges, generator = module.discriminator, module.averaged
    if kind == "vae":
        real = module.mel(normalise_peak(batch.wave))
        more = module.noise(real, module.validation_generator(0))
        loss = hinge_discriminator(judges(real), judges(module.losses(real, more)[1].detach()))
    else:
        real, more = batch.wave, torch.zeros(len(batch.wave), dtype=torch.bool)
        loss = module.losses.of_discriminator(judges, module.terms(real, more)[1], real)
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
    mean = torch.randn(n, 4, 16, 8, generator=g)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
    tokens = torch.randn(n, 3, 6, generator=g)
    return LatentBatch(mean, torch.full_like(mean, 0.01), unit, unit.roll(1, 0), tokens, mask)


def build_ldm(batches: int, kind: str = "film", **settings) -> LatentDiffusion:
    torch.manual_seed(0)
    sizes = {"film": {"film_dim": 8}, "cross": {"context_dim": 6}}[kind]
    unet = build_unet(
        kind, channels=(16, 32), latent_channels=4, layers=1, head_channels=8, groups=4, **sizes
    )
    null = torch.nn.functional.normalize(torch.ones(8), dim=-1)
    settings |= {"empty_tokens": torch.ones(1, 6)} if kind == "cross" else {}
    about = {"scaling_factor": 1.0, "empty": null, "lr": 3e-3, "batches": batches, "warmup": 5}
    return LatentDiffusion(unet, audioldm(), **about, **settings)


@pytest.mark.parametrize("kind", ["film", "cross"])
def test_latent_diffusion_learns_one_batch(kind: str):
    module, batch = build_ldm(60, kind, text_prob=0.5), latents()

    def validated() -> float:
        rngs = (module.validation_generator(i) for i in range(6))
        with torch.no_grad():
            return sum(module.losses(batch, rng, drop=0.0)["loss"].item() for rng in rngs)

    before = validated()
    fit(module, batch)
    assert validated() < 0.6 * before  # predicting zero keeps it where it was


def test_tokens_are_given_or_replaced_by_the_empty_prompts():
    module, batch = build_ldm(1, "cross"), latents()
    condition = module.condition(batch, torch.Generator().manual_seed(0), drop=0.0)
    assert torch.equal(condition.tokens, batch.tokens) and torch.equal(condition.mask, batch.mask)
    empty = module.condition(batch, torch.Generator().manual_seed(0), drop=1.0)
    assert torch.equal(empty.tokens[0], torch.tensor([[1.0] * 6, [0.0] * 6, [0.0] * 6]))
    assert empty.mask.tolist() == [[1, 0, 0]] * 4


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
