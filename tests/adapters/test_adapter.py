"""Attached, merged, taken off: the same numbers, and nothing left behind."""

import copy
from dataclasses import replace

import pytest
import torch

from audioldm.adapters.adapter import (
    attach,
    defaults,
    find,
    layers_of,
    learned,
    merge,
    start,
    unmerge,
)
from audioldm.adapters.delta import DELTAS
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.unet import build_unet

EXACT = {"rtol": 0, "atol": 1e-6}


def begun(net, kind, **settings):
    rng = torch.Generator().manual_seed(0)
    return start(net, kind, rank=4, targets=defaults(net, convolutions=True), generator=rng, **settings)


@pytest.mark.parametrize("kind", DELTAS)
@torch.no_grad()
def test_merged_equals_attached_and_unmerged_equals_before(unet, answer, moved, kind):
    net, before, weights = copy.deepcopy(unet), answer(unet), copy.deepcopy(unet.state_dict())
    adapter = moved(net, kind)
    learning = copy.deepcopy(unet)
    attach(learning, adapter)
    attached = answer(learning)
    kept = merge(net, [(adapter, 1.0)])
    assert (attached - before).abs().max() > 1e-3
    torch.testing.assert_close(answer(net), attached, **EXACT)
    unmerge(net, kept)
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert torch.equal(answer(net), before)


@torch.no_grad()
def test_several_of_other_kinds_and_ranks_add_up_in_any_order(unet, answer, moved):
    net = copy.deepcopy(unet)
    stack = [
        (moved(net, "lora", rank=1, convolutions=False), 0.5),
        (moved(net, "dora", rank=3, seed=1), 0.7),
        (moved(net, "lokr", rank=2, seed=2), -0.2),
    ]
    answers = []
    for order in (stack, stack[::-1]):
        kept = merge(net, order)
        answers.append(answer(net))
        for name in kept:
            alone = [w * a.layers[name].delta(kept[name]) for a, w in stack if name in a.layers]
            torch.testing.assert_close(layers_of(net)[name].weight, kept[name] + sum(alone), **EXACT)
        unmerge(net, kept)
    torch.testing.assert_close(*answers, **EXACT)


def test_only_the_adapter_learns(unet, answer):
    net = copy.deepcopy(unet)
    adapter = begun(net, "dora")
    learning = attach(net, adapter)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == adapter.parameters
    frozen = {name: p.detach().clone() for name, p in net.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD(learning, lr=0.1)
    answer(net).square().mean().backward()
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)
    optimizer.step()
    assert all(torch.equal(p, frozen[name]) for name, p in net.named_parameters() if name in frozen)
    after = learned(net, adapter)
    changed = [n for n, layer in after.layers.items() if layer.factors["lora_up"].abs().max() > 0]
    assert len(changed) == len(adapter.layers), "every layer got a gradient"


@torch.no_grad()
def test_a_half_precision_net_is_rounded_once(unet, moved):
    net = copy.deepcopy(unet).to(torch.bfloat16)
    adapter = moved(net, "lora")
    before = copy.deepcopy(net.state_dict())
    kept = merge(net, [(adapter, 1.0)])
    name = next(iter(adapter.layers))
    want = kept[name].float() + adapter.layers[name].delta(kept[name].float())
    assert torch.equal(layers_of(net)[name].weight, want.to(torch.bfloat16))
    unmerge(net, kept)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "dora"])
@torch.no_grad()
def test_an_adapter_kept_in_half_precision_is_computed_in_the_nets(unet, moved, kind):
    adapter = moved(unet, kind)
    half = {n: {k: v.half() for k, v in x.factors.items()} for n, x in adapter.layers.items()}
    stored = replace(adapter, layers={n: replace(x, factors=half[n]) for n, x in adapter.layers.items()})
    for name, layer in stored.layers.items():
        weight = layers_of(unet)[name].weight
        exact = replace(layer, factors={k: v.float() for k, v in layer.factors.items()})
        assert torch.equal(layer.delta(weight), exact.delta(weight))


def test_a_rank_larger_than_the_layer_is_cut_and_told(unet):
    with pytest.warns(
        AudioLDMWarning, match=r"rank=64 is more than \d+ of \d+ layers can have, such as .*\(16\)"
    ):
        adapter = start(unet, "lora", rank=64, targets=["to_q", "conv1"], generator=torch.Generator())
    ranks = {name: layer.factors["lora_down"].shape[0] for name, layer in adapter.layers.items()}
    for name, rank in ranks.items():
        weight = layers_of(unet)[name].weight
        assert rank == min(64, weight.shape[0], weight[0].numel())
        assert adapter.layers[name].scale == 1.0
    assert len(set(ranks.values())) > 1


def test_a_target_that_matches_nothing_is_told_with_near_misses(unet):
    with pytest.raises(AudioLDMError, match=r"'to_qq' matches no layer.*Near it: .*to_q"):
        find(unet, ["to_k", "to_qq"])
    with pytest.raises(AudioLDMError, match=r"'zzz' matches no layer with weights. Such as"):
        find(unet, ["zzz"])
    with pytest.raises(AudioLDMError, match="'norm1' matches no layer"):
        find(unet, ["norm1"])
    with pytest.raises(AudioLDMError, match="kind='lore' is no adapter"):
        start(unet, "lore", rank=1, targets=["to_q"], generator=torch.Generator())
    with pytest.raises(AudioLDMError, match="rank=0 is not a rank"):
        start(unet, "lora", rank=0, targets=["to_q"], generator=torch.Generator())


def test_an_adapter_of_another_net_is_refused_and_changes_nothing(unet, moved):
    other = build_unet(channels=(8, 16), latent_channels=4, layers=1, head_channels=8, film_dim=16, groups=4)
    before = copy.deepcopy(other.state_dict())
    for kind in DELTAS:
        with pytest.raises(AudioLDMError, match="does not fit"):
            merge(other, [(moved(unet, kind), 1.0)])
        with pytest.raises(AudioLDMError, match="does not fit"):
            attach(other, moved(unet, kind))
    deep = build_unet(
        channels=(16, 32, 32), latent_channels=4, layers=1, head_channels=8, film_dim=16, groups=4
    )
    with pytest.raises(AudioLDMError, match="has no layer"):
        merge(unet, [(moved(deep, "lora"), 1.0)])
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
