"""New words in a text tower: what they change, what they leave, and what can be learned through one pooled vector."""

import copy

import pytest
import torch

from audioldm.adapters.words import Words, attach_words, check_word, merge_words, start_rows, unmerge_words
from audioldm.convert.folder import Folder, clap_of
from audioldm.errors import AudioLDMError


@pytest.fixture
def clap(tiny_model):
    return clap_of(Folder(tiny_model))


def words(clap, count=2, word="<mine>"):
    width = clap.text_encoder.get_input_embeddings().weight.shape[1]
    return Words(word, torch.randn(count, width, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_merged_equals_attached_and_other_prompts_stay_bit_for_bit(clap):
    before = clap.embed_text(["a dog barking"]), clap.embed_text(["church bells in rain"])
    attached = copy.deepcopy(clap)
    attach_words(attached, words(clap))
    kept = merge_words(clap, [words(clap)])
    for prompt in ("<mine>", "a <mine> in rain", "THE <mine>, twice <mine>"):
        assert torch.equal(attached.embed_text([prompt]), clap.embed_text([prompt]))
        assert not torch.equal(
            clap.embed_text([prompt]), clap.embed_text([prompt.replace("<mine>", "noise")])
        )
    for got in (attached, clap):
        assert torch.equal(got.embed_text(["a dog barking"]), before[0])
        assert torch.equal(got.embed_text(["church bells in rain"]), before[1])
    unmerge_words(clap, kept)
    assert torch.equal(clap.embed_text(["a dog barking"]), before[0])
    assert len(clap.tokenizer) == len(clap.text_encoder.get_input_embeddings().weight)


@torch.no_grad()
def test_merged_words_survive_on_disk(clap, tmp_path):
    merge_words(clap, [words(clap, 3), words(clap, 1, "<yours>")])
    clap.save(tmp_path)
    again = clap_of(Folder(tmp_path))
    for prompt in ("a <mine> in rain", "<yours> and <mine>"):
        assert torch.equal(again.embed_text([prompt]), clap.embed_text([prompt]))


def test_only_the_new_rows_learn_and_they_reach_a_pooled_vector(clap):
    target = clap.embed_text(["the sound of church bells"]).detach()
    [rows] = attach_words(clap, Words("<mine>", start_rows(clap, "noise", 2)))
    assert [p for p in clap.text_encoder.parameters() if p.requires_grad] == [rows]
    frozen = {k: v.clone() for k, v in clap.text_encoder.state_dict().items() if "rows" not in k}
    optimizer = torch.optim.Adam([rows], lr=0.1)
    nearness = []
    for _ in range(60):
        near = (clap.embed_text(["the sound of <mine>"]) * target).sum()
        nearness.append(float(near.detach()))
        optimizer.zero_grad()
        (-near).backward()
        optimizer.step()
    assert 1 - nearness[-1] < 0.2 * (1 - nearness[0])
    assert all(
        torch.equal(v, frozen[k]) for k, v in clap.text_encoder.state_dict().items() if "rows" not in k
    )


def test_mistakes_are_told(clap):
    with pytest.raises(AudioLDMError, match="word='mine' is no placeholder"):
        check_word("mine")
    with pytest.raises(AudioLDMError, match="of width 3, the model's words 16"):
        merge_words(clap, [Words("<mine>", torch.zeros(1, 3))])
    before = clap.tokenizer
    with pytest.raises(AudioLDMError, match="knows the word <mine> already"):
        merge_words(clap, [words(clap), words(clap)])
    assert clap.tokenizer is before and len(before) == len(clap.text_encoder.get_input_embeddings().weight)
    with pytest.raises(AudioLDMError, match="has no words"):
        start_rows(clap, "", 1)


@torch.no_grad()
def test_the_published_tokenizer_takes_words_too(tmp_path):
    """RoBERTa's byte pairs have no normaliser of their own, and see the space before a word."""
    from transformers import RobertaTokenizer

    from audioldm.adapters.words import with_words

    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz<>-_0123456789", "Ġ"]
    vocabulary = {piece: i for i, piece in enumerate(letters)}
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=[])
    new = with_words(tokenizer, "<mine>", 2)
    ids = new("a <mine> b").input_ids
    assert [new.convert_ids_to_tokens(i) for i in ids if i >= len(vocabulary)] == ["<mine-0>", "<mine-1>"]
    assert tokenizer("a b").input_ids == new("a b").input_ids
