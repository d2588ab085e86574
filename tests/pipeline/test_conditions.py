"""Between prompts and sounds on CLAP's sphere, and the choice among candidates."""

from dataclasses import replace

import pytest
import torch

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.pipeline import conditions
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import clap_scores

QUICK = {"seconds": 0.32, "steps": 2, "guidance": 1.0}


def test_the_pipeline_takes_conditions_among_prompts(pipe):
    told = pipe.encode_text(["rain"])
    by_text = pipe(["noise", "rain"], seeds=[0, 1], **QUICK)
    mixed = pipe(["noise", told], seeds=[0, 1], **QUICK)
    assert torch.equal(by_text, mixed)
    together = pipe(["noise", told], seeds=[0, 1], batch_size=2, **QUICK)
    # float32 kernels round differently for another batch size
    torch.testing.assert_close(together, by_text, rtol=0, atol=1e-4)


def test_ends_of_the_way_are_the_prompts_themselves(pipe):
    start, end = pipe.encode_text(["rain"]), pipe.encode_text(["church bells"])
    assert conditions.between(pipe, start, end.film, 0.0) is start
    torch.testing.assert_close(conditions.between(pipe, start, end.film, 1.0).film, end.film)
    middle = conditions.between(pipe, start, end.film, 0.5).film
    assert not torch.allclose(middle, start.film)


def test_words_cannot_be_mixed(pipe):
    words = Condition(tokens=torch.zeros(1, 3, 8))
    with pytest.raises(AudioLDMError, match="cannot be mixed"):
        conditions.between(pipe, words, torch.ones(1, 16), 0.5)


def test_a_clap_without_ears_is_refused(pipe):
    deaf = replace(pipe, clap=torch.nn.Identity())
    with pytest.raises(AudioLDMError, match="--rerank needs a CLAP that hears"):
        conditions.check_can_hear(deaf, "--rerank")


def test_scores_are_cosines_and_do_not_know_loudness(pipe):
    waves = 0.1 * torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    asked = pipe.encode_text(["rain", "noise", "church bells"]).film
    scores = clap_scores(pipe, waves, asked)
    assert scores.shape == (3,)
    assert (scores.abs() <= 1 + 1e-6).all()
    # 1e-5: the gain itself rounds in float32
    torch.testing.assert_close(clap_scores(pipe, 3 * waves, asked), scores, rtol=0, atol=1e-5)
    own = conditions.clap_of(pipe, waves)
    torch.testing.assert_close(clap_scores(pipe, waves, own), torch.ones(3))


def test_a_prior_gives_texts_the_vectors_of_sounds_and_leaves_ready_conditions(tiny_model):
    from dataclasses import replace

    from audioldm.nets.prior import Prior
    from audioldm.pipeline.conditions import encode

    plain = AudioLDM.from_pretrained(tiny_model)
    torch.manual_seed(0)
    pipe = replace(plain, prior=Prior(16, 32, 2, 1).eval())
    ready = plain.encode_text(["rain"])
    before = encode(plain, ["rain", ready], "noise", seeds=[1, 2])
    after = encode(pipe, ["rain", ready], "noise", seeds=[1, 2])
    assert torch.equal(after.empty.film, before.empty.film)
    assert torch.equal(after.rows[0].film[1], ready.film[0])
    assert not torch.allclose(after.rows[0].film[0], ready.film[0], atol=0.1)
    assert torch.equal(encode(pipe, ["rain"], "noise").rows[0].film, ready.film), (
        "without seeds nothing is drawn"
    )
    quick = {"seconds": 0.64, "steps": 1}
    one, same, other = (pipe("rain", seeds=[seed], **quick) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, plain("rain", seeds=[1], **quick))
    assert not torch.equal(one, other)
