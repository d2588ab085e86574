"""AudioLDM 2's U-Net and its relatives, and the 48 kHz front end."""

from math import prod
from pathlib import Path

import pytest
import torch
from originals import contexts_state, enliven, prefixed, whole
from transformers import T5Config, T5EncoderModel

from audioldm.batch import Condition
from audioldm.convert import unet
from audioldm.convert.checkpoint import read_checkpoint
from audioldm.convert.folder import published_heads
from audioldm.nets.folder import load_component, save_component
from audioldm.nets.hifigan import build_hifigan, vocode
from audioldm.nets.unet import UNetSizes, build_unet, kind_of, net_call
from audioldm.signal.mel import LogMel
from audioldm.spec import SPECS

PUBLISHED = {
    "audioldm2-full": ((None, 768, 1024), 1, None, 346.94),
    "audioldm2-full-large-1150k": ((None, 768, 1024, None), 2, None, 718.0),
    "audioldm_48k": ((None, None), 1, 512, 262.7),
    "audioldm_16k_crossattn_t5": ((None, 1024), 1, None, 265.5),
    "audioldm2-speech": ((None, 768), 1, None, 261.9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_builder_has_the_published_numbers_of_parameters(name):
    contexts, depth, film, millions = PUBLISHED[name]
    with torch.device("meta"):
        net = build_unet("cross" if film is None else "film", contexts=contexts, depth=depth, film_dim=film)
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.06)  # the figures are given to one place


TOY = {"channels": (32, 64), "latent_channels": 4, "layers": 1}


def toy(contexts, **more):
    torch.manual_seed(0)
    kind = "cross" if more.get("film_dim") is None else "film"
    net = build_unet(kind, contexts=contexts, **TOY, **more).eval()
    enliven(net, seed=0)
    return net


@pytest.mark.parametrize(
    ("contexts", "film", "kind"),
    [((None, 40), None, "cross"), ((None, None), 16, "film"), ((None, 24, 40, None), 16, "both")],
)
def test_a_checkpoint_of_contexts_becomes_the_same_net(contexts, film, kind, tmp_path):
    net = toy(contexts, film_dim=film, depth=2)
    torch.save({"state_dict": prefixed(contexts_state(net, len(contexts)), unet.PREFIX)}, tmp_path / "a.ckpt")
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    shape = checkpoint.nets["unet"].config["shape"]
    assert shape.contexts == contexts and shape.depth == 2
    again = checkpoint.build("unet")
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert kind_of(again) == kind and tuple(again.config.attention_head_dim) == (1, 2)


def test_a_relatives_nets_come_out_but_it_does_not_generate(command, pipe, vocabulary, tmp_path, capsys):
    net = toy((None, 24, 40))
    state = {k: v for k, v in whole(pipe).items() if not k.startswith(unet.PREFIX)}
    state |= prefixed(contexts_state(net, 3), unet.PREFIX)
    sizes = {"vocab_size": 50, "d_model": 40, "num_layers": 2, "num_heads": 3, "d_kv": 8, "d_ff": 20}
    words = T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")).eval()
    state |= prefixed(words.state_dict(), "cond_stage_models.1.model.")
    torch.save({"state_dict": state}, tmp_path / "two.pth")
    assert (
        command(
            "generate", "rain", "-m", tmp_path / "two.pth", "--set", f"tokenizer={vocabulary}", "-o", tmp_path
        )
        == 2
    )
    assert "needs token sequences (24, 40 wide); the file gives 40." in capsys.readouterr().err
    assert command("export", tmp_path / "two.pth", "-o", tmp_path / "parts") == 0
    folders = {Path(line).name for line in capsys.readouterr().out.split()}
    assert folders == {"unet", "vae", "vocoder", "text_encoder", "audio_encoder", "text_encoder_2"}
    ids = torch.tensor([[5, 7, 9, 1]])
    with torch.no_grad():
        states = load_component(tmp_path / "parts/text_encoder_2")(ids).last_hidden_state
        assert torch.equal(states, words(ids).last_hidden_state)
    again = load_component(tmp_path / "parts/unet")
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_both_contexts_are_heard_and_asked_for(tmp_path):
    call, g = net_call(toy((None, 24, 40))), torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 4, 8, 4, generator=g), torch.tensor([3, 700])
    a, b = torch.randn(2, 5, 24, generator=g), torch.randn(2, 7, 40, generator=g)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    full = torch.ones(2, 7, dtype=torch.long)
    condition = Condition(None, a, mask, b, full)
    with torch.no_grad():
        base = call(x, t, condition)
        assert not torch.allclose(base, call(x, t, Condition(None, a.flip(1), mask, b, full)), atol=1e-4)
        assert not torch.allclose(base, call(x, t, Condition(None, a, mask, b + 1, full)), atol=1e-4)
        hidden = a.clone()
        hidden[1, 2:] += 5
        # a masked token carries a weight of exp(-10000), which is 0 in float32
        assert torch.allclose(base, call(x, t, Condition(None, hidden, mask, b, full)), atol=1e-5)
        # rows are told apart by the batch's parts, all five of them
        assert torch.allclose(base[1:], call(x[1:], t[1:], condition.rows(slice(1, 2))), atol=1e-5)
    with pytest.raises(ValueError, match="two token sequences"):
        call(x, t, Condition(None, a, mask))
    with pytest.raises(ValueError, match="at most two"):
        build_unet("cross", contexts=(8, 16, 24))


def test_a_folder_of_audioldm_2_has_its_heads_mended(tmp_path):
    save_component(build_unet("cross", contexts=(None, 24, 40), heads=8, **TOY), tmp_path)
    assert published_heads(tmp_path) == (1, 2)
    assert load_component(tmp_path).config.attention_head_dim == 8


def test_a_shape_nobody_published_is_refused():
    from audioldm.errors import AudioLDMError

    toy = {"channels": (32, 64), "latent_channels": 4, "layers": 1, "contexts": (None,)}
    shape = UNetSizes(**toy, attention=(True, True), film_dim=16)
    with pytest.raises(AudioLDMError, match="attention at levels"):
        unet.build(shape, (1, 2))
    with pytest.raises(AudioLDMError, match="no condition at all"):
        unet.build(UNetSizes(**toy, attention=(False, True), film_dim=None), (1, 2))


def test_the_48_khz_front_end():
    spec = SPECS["48k_256"]
    assert (
        spec.frames(10.24) == 1024
        and spec.latent_shape(10.24) == (16, 128, 32)
        and spec.samples(10.24) == 491520
    )
    librosa = pytest.importorskip("librosa")
    wave = 0.1 * torch.randn(1, 1, 48000, generator=torch.Generator().manual_seed(0))
    ours = LogMel(spec)(wave)[0, 0]
    padded = torch.nn.functional.pad(wave, (spec.pad, spec.pad), mode="reflect")[0, 0].numpy()
    theirs = librosa.feature.melspectrogram(
        y=padded,
        sr=48000,
        n_fft=2048,
        hop_length=480,
        center=False,
        power=1.0,
        n_mels=256,
        fmin=20,
        fmax=24000,
    )
    theirs = torch.from_numpy(theirs).clamp(min=1e-5).log().T
    assert ours.shape == theirs.shape == (100, 256)
    assert (ours - theirs).abs().max() < 1e-3  # float32 sums of 2048 products, then a logarithm


@pytest.mark.parametrize(
    ("rate", "mels", "upsample", "kernels"),
    [(16000, 64, (5, 4, 2, 2, 2), (16, 16, 8, 4, 4)), (48000, 256, (6, 5, 4, 2, 2), (12, 10, 8, 4, 4))],
)
def test_vocoders_frames_stay_in_place(rate, mels, upsample, kernels):
    """An odd rate has no padding that keeps the frames' centres: theirs are half a step early or late, ours is between.

    All weights positive and alike, so that what one frame gives has its centre where the net puts the frame.
    """
    net = build_hifigan(
        mels=mels,
        rate=rate,
        channels=32,
        upsample=upsample,
        upsample_kernels=kernels,
        kernels=(3,),
        dilations=((1,),),
    )
    for key, value in net.named_parameters():
        value.data.fill_(0.0 if key.endswith("bias") else 1 / value[0].numel())
    net = net.double().eval()
    frames, hop = 33, prod(upsample)
    mel = torch.zeros(1, 1, frames, mels, dtype=torch.float64)
    mel[:, :, frames // 2] = 1e-3  # in the straight part of the last tanh
    with torch.no_grad():
        wave, raw = vocode(net, mel)[0, 0], net(mel[:, 0])[0]
    middle = (frames // 2 + 0.5) * hop - 0.5

    def centre(sound) -> float:
        return float((sound * torch.arange(len(sound), dtype=torch.float64)).sum() / sound.sum())

    step = (len(raw) - frames * hop) / 2
    assert step == {16000: 16, 48000: 8}[rate]
    assert centre(wave) == pytest.approx(middle, abs=1e-6)
    assert centre(raw) == pytest.approx(middle + step, abs=1e-6), "AudioLDM 2's padding, (k - u) // 2"
    assert centre(raw[int(2 * step) :]) == pytest.approx(middle - step, abs=1e-6), "the training repository's"
