"""A captioner learns its batch from sound and from text alone; a prior learns where the sounds of a text lie."""

import pytest
import torch
from torch.nn import functional as nnf

from audioldm.batch import Batch, LatentBatch
from audioldm.convert.reference import open_part
from audioldm.datasets.synthetic import SOUNDS, Synthetic, captions
from audioldm.nets.captioner import build_captioner, sound_features
from audioldm.nets.clap import MelEncoder, TwoTowers, build_text_encoder, train_tokenizer
from audioldm.nets.folder import load_component, save_component
from audioldm.nets.prior import Prior
from audioldm.pipeline.captions import Captioning
from audioldm.signal.level import normalise_peak
from audioldm.spec import SPECS
from audioldm.training.captioner import CaptionerTraining
from audioldm.training.prior import PriorTraining

SIZES = {"width": 64, "queries": 2, "layers": (1, 1)}


@pytest.fixture(scope="module")
def clap() -> TwoTowers:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(captions(), size=200)
    tower = MelEncoder(widths=(8, 16), dim=16, hidden=16)
    return TwoTowers(
        build_text_encoder(tokenizer, width=16, layers=1, heads=2, dim=16), tokenizer, tower
    ).eval()


@pytest.fixture(scope="module")
def sounds() -> Batch:
    data = Synthetic(SPECS["16k_64"], 0.64, len(SOUNDS))
    waves, texts, ids = zip(*(data[i] for i in range(len(SOUNDS))), strict=True)
    return Batch(torch.stack(waves), list(texts), list(ids))


def train(module, batch, steps: int) -> list[dict]:
    optimizer = torch.optim.AdamW(module.captioner.parameters(), 2e-3)
    terms = []
    for _ in range(steps):
        module.batch_count += 1
        terms.append(module.training_step(batch, 0))
        optimizer.zero_grad()
        terms[-1]["loss"].backward()
        optimizer.step()
    return terms


@pytest.fixture(scope="module")
def trained(clap, sounds) -> CaptionerTraining:
    torch.manual_seed(0)
    module = CaptionerTraining(build_captioner(clap, captions(), **SIZES), clap, batches=300)
    train(module.train(), sounds, 300)
    module.eval()
    return module


def test_a_captioner_writes_what_it_was_shown_and_knows_what_belongs_together(trained, clap, sounds):
    captioning = Captioning(trained.captioner, clap, beams=2)
    written = captioning(sounds.wave)
    assert sum(one.text == text for one, text in zip(written, sounds.captions, strict=True)) >= 5
    sequence = captioning.captioner.sequence(*sound_features(clap, normalise_peak(sounds.wave)))
    right = torch.tensor(captioning.matches(sequence, sounds.captions))
    wrong = torch.tensor(captioning.matches(sequence, sounds.captions[1:] + sounds.captions[:1]))
    assert right.mean() > wrong.mean() + 0.1


def test_text_alone_teaches_the_decoder(sounds):
    clap = open_part("embedded", "clap")
    torch.manual_seed(0)
    net = build_captioner(clap, captions(), **SIZES)
    module = CaptionerTraining(net, clap, pretrain=60, noise=0.1, texts=captions(), batches=200)
    terms = train(module.train(), sounds, 60)
    assert set(terms[0]) == {"loss", "text_only"}
    assert terms[-1]["loss"] < 0.6 * terms[0]["loss"]
    module.eval()
    with torch.no_grad():
        text = clap.embed_text(sounds.captions)
        vector, _ = sound_features(clap, normalise_peak(sounds.wave))
    assert (text + module.gap - vector).mean(0).norm() < 0.3 * (text - vector).mean(0).norm()


def test_of_several_captions_the_likeliest_that_clap_finds_near_is_written(trained, clap, sounds):
    captioning = Captioning(trained.captioner, clap, beams=2)
    near, far = (trained.captioner.tokens(clap.tokenizer, [text]) for text in sounds.captions[:2])
    pair = torch.nn.utils.rnn.pad_sequence([near[0], far[0]], batch_first=True)[None]
    vector = clap.embed_text(sounds.captions[:1]).detach()
    for likely, expected in ((torch.zeros(1, 2), 0), (torch.tensor([[-9.0, 0.0]]), 1)):
        assert captioning.choose(vector, pair, likely) == [sounds.captions[expected]]


def test_no_checkpoint_holds_the_frozen_clap_and_a_file_gives_the_same_words(trained, clap, sounds, tmp_path):
    assert not [name for name in trained.state_dict() if "clap" in name or "frozen" in name]
    save_component(trained.captioner, tmp_path)
    again = load_component(tmp_path)
    sequence = trained.captioner.sequence(*sound_features(clap, sounds.wave)).detach()
    assert torch.equal(again.candidates(sequence)[0], trained.captioner.candidates(sequence)[0])
    names = again.state_dict()
    assert not [name for name in names if "lm_head" in name], "the words' table is there once"


def test_a_prior_draws_where_the_sounds_of_a_text_lie():
    # two texts; the sounds of each lie around a direction of their own, far from the texts: the gap
    torch.manual_seed(0)
    text = nnf.normalize(torch.randn(2, 16), dim=-1)
    centre = nnf.normalize(torch.randn(2, 16) + 2, dim=-1)
    kind = torch.arange(64) % 2
    rng = torch.Generator().manual_seed(0)
    module = PriorTraining(Prior(16, 32, 2, 2), empty=torch.zeros(16), batches=1)
    optimizer = torch.optim.AdamW(module.prior.parameters(), 2e-3)
    for _ in range(250):
        module.batch_count += 1
        audio = nnf.normalize(centre[kind] + 0.1 * torch.randn(64, 16, generator=rng), dim=-1)
        unused = audio[:, :1, None, None]
        loss = module.training_step(LatentBatch(unused, unused, text[kind], audio), 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn = module.prior.sample(text[kind], module.empty, seeds=range(64))
    assert torch.allclose(drawn.norm(dim=-1), torch.ones(64), atol=1e-5)
    near = drawn @ centre.T
    assert (near.argmax(1) == kind).float().mean() > 0.95
    assert near.gather(1, kind[:, None]).mean() > 0.85 > (text[kind] * centre[kind]).sum(1).mean()
    again = module.prior.sample(text[kind][:3], module.empty, seeds=[0, 1, 5])
    assert torch.allclose(again[:2], drawn[:2], atol=1e-5), "a seed is its own, whoever is beside it"
    assert not torch.allclose(again[2], drawn[2], atol=1e-2)
