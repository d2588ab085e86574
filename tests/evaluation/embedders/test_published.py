"""VGGish and Cnn14 with random weights of the published layout, against the packages that defined them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import panns, vggish
from audioldm.evaluation.embedders.registry import EMBEDDERS, load_embedder
from audioldm.evaluation.embedders.weights import WeightFile, digest, read_state


def noise(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parity
def test_vggish_hears_as_torchvggish_does(tmp_path: Path) -> None:
    theirs = pytest.importorskip("torchvggish.torchvggish")
    inputs = pytest.importorskip("torchvggish.vggish_input")
    torch.manual_seed(0)
    net = theirs.VGG(theirs.make_layers(), postprocess=False).eval()
    net.embeddings = net.embeddings[:-1]  # the tables leave the last ReLU out
    path = tmp_path / "vggish.pth"
    torch.save(net.state_dict(), path)
    ours = vggish.VGGish(path, file=WeightFile("vggish.pth", digest(path), "nowhere"))
    wave = noise(3.1, 16000)
    examples = inputs.waveform_to_examples(wave.double().numpy(), 16000, return_tensor=True)
    # They take the spectrum in float64.
    torch.testing.assert_close(vggish.patches(wave), examples[:, 0].float().detach(), rtol=0, atol=2e-4)
    with torch.no_grad():
        expected = net(examples.float())
    heard = ours.listen(wave)
    assert heard.rows.shape == (3, 128)
    torch.testing.assert_close(heard.rows, expected, rtol=1e-3, atol=1e-5)


def test_vggish_has_the_published_size_and_patches() -> None:
    with torch.device("meta"):
        net = vggish.Net()
    assert sum(p.numel() for p in net.parameters()) == 72_141_184
    for seconds, count in ((0.2, 1), (0.96, 1), (9.5, 9), (10.0, 10), (10.24, 10)):
        assert vggish.patches(torch.zeros(round(seconds * 16000))).shape == (count, 96, 64)


@pytest.mark.parity
@pytest.mark.parametrize("variant", panns.VARIANTS.values(), ids=lambda v: v.name)
def test_cnn14_front_end_is_torchlibrosas(variant: panns.Variant) -> None:
    stft = pytest.importorskip("torchlibrosa.stft")
    spectrum = stft.Spectrogram(
        n_fft=variant.n_fft, hop_length=variant.hop, win_length=variant.n_fft, freeze_parameters=True
    )
    mel = stft.LogmelFilterBank(
        sr=variant.rate, n_fft=variant.n_fft, n_mels=64, fmin=50, fmax=variant.fmax, ref=1.0, amin=1e-10,
        top_db=None, freeze_parameters=True,
    )  # fmt: skip
    ours = panns.LogMel(variant)
    torch.testing.assert_close(ours.melW, mel.melW.detach(), rtol=1e-4, atol=1e-7)
    wave = noise(1.3, variant.rate)[None]
    with torch.no_grad():
        # Their Fourier transform is a float32 convolution: 1e-6 of the power, a few mdB where it is weak.
        torch.testing.assert_close(ours(wave), mel(spectrum(wave)), rtol=0, atol=5e-3)


@pytest.mark.parametrize("variant", panns.VARIANTS.values(), ids=lambda v: v.name)
def test_cnn14_front_end_is_librosas(variant: panns.Variant) -> None:
    import librosa

    wave = noise(1.0, variant.rate)
    power = librosa.feature.melspectrogram(
        y=wave.numpy(), sr=variant.rate, n_fft=variant.n_fft, hop_length=variant.hop, n_mels=64, fmin=50,
        fmax=variant.fmax, pad_mode="reflect",
    )  # fmt: skip
    expected = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None).T
    np.testing.assert_allclose(panns.LogMel(variant)(wave[None])[0, 0].numpy(), expected, rtol=0, atol=1e-3)


def test_cnn14_has_the_published_size() -> None:
    net = panns.Net(panns.VARIANTS["panns-cnn14-16k"])
    assert sum(p.numel() for p in net.parameters()) == 80_753_615


def small_cnn14(path: Path) -> panns.Net:
    """A checkpoint in the published layout: a net, its Fourier convolutions and a sampler's numpy state."""
    torch.manual_seed(0)
    net = panns.Net(panns.VARIANTS["panns-cnn14-16k"], width=2).eval()
    state = {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(257, 1, 512), **net.state_dict()}
    sampler = {"indexes": np.arange(5), "pointer": 3}
    torch.save({"iteration": 1, "model": state, "sampler": sampler}, path)
    return net


def test_cnn14_reads_the_published_layout_and_pools_over_time(tmp_path: Path) -> None:
    path = tmp_path / "Cnn14.pth"
    net = small_cnn14(path)
    file = WeightFile("Cnn14.pth", digest(path), "nowhere")
    ours = panns.Panns("panns-cnn14-16k", tmp_path, width=2, file=file)
    wave = noise(2.0, 16000)
    heard = ours.listen(wave)
    with torch.no_grad():
        embedding, logits = net(wave[None])
    assert heard.rows.shape == (1, 64)
    assert heard.logits is not None
    assert heard.logits.shape == (1, 527)
    torch.testing.assert_close(heard.rows, embedding, rtol=0, atol=0)
    torch.testing.assert_close(heard.logits, logits, rtol=0, atol=0)
    assert torch.equal(ours.listen(wave).rows, heard.rows), "batch norm and dropout are in eval mode"
    assert ours.listen(noise(0.01, 16000)).rows.isfinite().all()


def test_missing_weights_name_file_hash_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path))
    for name, file, start in (
        ("vggish", "vggish-10086976.pth", "10086976"),
        ("panns-cnn14-16k", "Cnn14_16k_mAP=0.438.pth", "e2ee543a"),
        ("panns-cnn14-32k", "Cnn14_mAP=0.431.pth", "0dc499e4"),
    ):
        with pytest.raises(AudioLDMError) as told:
            load_embedder(name)
        text = str(told.value)
        assert file in text and start in text and str(tmp_path) in text and "http" in text
    with pytest.raises(AudioLDMError, match=r"clap needs a folder.*clap-htsat-unfused"):
        load_embedder("clap")
    with pytest.raises(AudioLDMError, match=r"embedder='inception' is unknown.*yamnet"):
        load_embedder("inception")
    assert set(EMBEDDERS) >= {"yamnet", "vggish", "panns-cnn14-16k", "panns-cnn14-32k", "clap"}


def test_other_bytes_and_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vggish-10086976.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(AudioLDMError, match=r"has sha256 .* not 10086976"):
        vggish.VGGish(path)
    with pytest.raises(AudioLDMError, match=r"another network: 18 tensors lack .* 1 are unknown"):
        vggish.VGGish(path, file=WeightFile(path.name, digest(path), "nowhere"))


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    path = tmp_path / "trap.pth"
    torch.save({"model": Trap()}, path)
    with pytest.raises(pickle.UnpicklingError):
        read_state(path)
    assert not (tmp_path / "trapped").exists()
