"""VGGish, Cnn14, PaSST and OpenL3 with random weights of the published layout, against the packages they come from."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import EMBEDDERS, load_embedder, openl3, panns, passt, vggish
from audioldm.evaluation.embedders.weights import WeightFile, digest, git_blob, read_state


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
    heard = ours.embed(wave)
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
    heard = ours.embed(wave)
    with torch.no_grad():
        embedding, logits = net(wave[None])
    assert heard.rows.shape == (1, 64)
    assert heard.logits is not None
    assert heard.logits.shape == (1, 527)
    torch.testing.assert_close(heard.rows, embedding, rtol=0, atol=0)
    torch.testing.assert_close(heard.logits, logits, rtol=0, atol=0)
    assert torch.equal(ours.embed(wave).rows, heard.rows), "batch norm and dropout are in eval mode"
    assert ours.embed(noise(0.01, 16000)).rows.isfinite().all()


def pretend(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, object]) -> None:
    """Modules that the oracles import at the top and never use here: a downloader, resamplers."""
    for name, content in modules.items():
        module = types.ModuleType(name.replace("__", "."))
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def lively(net: torch.nn.Module) -> torch.nn.Module:
    """Random weights large enough to matter, and statistics for the batch norms."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parity
def test_passt_hears_as_hear21passt_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, timm={}, timm__models={}, timm__models___hub={"download_cached_file": None})
    theirs = pytest.importorskip("hear21passt.models.passt")
    front = pytest.importorskip("hear21passt.models.preprocess")
    monkeypatch.setattr(theirs, "first_RUN", False)  # it prints
    torch.manual_seed(0)
    net = theirs.PaSST(
        stride=10, distilled=True, img_size=(128, 998), embed_dim=128, depth=2, num_heads=2
    ).eval()
    for parameter in net.parameters():
        parameter.data.normal_(0, 0.1)
    path = tmp_path / "passt.pt"
    torch.save(net.state_dict(), path)
    ours = passt.Passt(path, width=128, depth=2, file=WeightFile("passt.pt", digest(path), "nowhere"))
    stft, wave = torch.stft, noise(10.0, 32000)
    mel = front.AugmentMelSTFT(fmin_aug_range=10, fmax_aug_range=2000).eval()
    with monkeypatch.context() as older, torch.no_grad():  # theirs asks for pairs of real numbers
        older.setattr(
            torch,
            "stft",
            lambda *a, return_complex=None, **k: torch.view_as_real(stft(*a, return_complex=True, **k)),
        )
        expected = mel(wave[None])
    torch.testing.assert_close(
        passt.log_mel(wave[None])[:, 0], expected, rtol=0, atol=2e-4
    )  # float32 filters
    with torch.no_grad():
        logits, features = net(expected[:, None])
    heard = ours.embed(wave)
    torch.testing.assert_close(heard.rows, features, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(heard.logits, logits, rtol=1e-3, atol=1e-4)
    assert ours.embed(noise(10.24, 32000)).rows.shape == (1, 128), "the rest of 0.24 s does not count"
    assert ours.embed(noise(21.0, 32000)).rows.shape == (3, 128)
    assert ours.embed(noise(0.01, 32000)).rows.isfinite().all()


def test_passt_front_end_is_kaldis() -> None:
    from torchaudio.compliance.kaldi import get_mel_banks

    expected = get_mel_banks(128, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0)[0]
    torch.testing.assert_close(passt.filterbank()[:, :512], expected, rtol=0, atol=1e-4)  # theirs in float32
    assert passt.filterbank()[:, 512].abs().max() == 0
    assert passt.log_mel(torch.zeros(1, 320000)).shape == (1, 1, 128, 1000)


@pytest.mark.parity
def test_openl3_hears_as_torchopenl3_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import librosa

    real = librosa.filters.mel  # in the librosa of their time norm=1 was what slaney is now
    monkeypatch.setattr(librosa.filters, "mel", lambda **k: real(**{**k, "norm": "slaney"}))
    pretend(monkeypatch, julius={}, resampy={}, six={})
    theirs = pytest.importorskip("torchopenl3.models")
    inputs = pytest.importorskip("torchopenl3.utils")
    net = lively(theirs.PytorchOpenl3("env", "mel256", 512))
    path = tmp_path / "openl3.pth.tar"
    torch.save(net.state_dict(), path)
    ours = openl3.OpenL3(path, file=WeightFile("openl3.pth.tar", "", "nowhere", blob=git_blob(path)))
    wave = noise(1.3, 48000)
    cut = inputs.pad_audio(inputs.center_audio(wave[None], 48000), 48000, 24000)[0].unfold(0, 48000, 24000)
    assert torch.equal(openl3.windows(wave), cut)
    with torch.no_grad():
        spectra, expected = net.speclayer(cut[:, None])[..., 0], net(cut[:, None])
    # Their Fourier transform is a float32 convolution: a few mdB where it is weak.
    torch.testing.assert_close(ours.net.speclayer(cut)[:, 0], spectra, rtol=0, atol=5e-3)
    heard = ours.embed(wave)
    assert heard.rows.shape == (3, 512)
    torch.testing.assert_close(heard.rows, expected, rtol=1e-3, atol=1e-5)


def test_openl3_front_end_is_librosas() -> None:
    import librosa

    wave = noise(1.0, 48000)
    power = librosa.feature.melspectrogram(
        y=np.pad(wave.numpy(), openl3.PAD), sr=48000, n_fft=2048, hop_length=242, n_mels=256, htk=True, center=False
    )  # fmt: skip
    decibels = 10 * np.log10(np.maximum(np.sqrt(power), 1e-10))
    expected = np.maximum(decibels - decibels.max(), -80)
    np.testing.assert_allclose(openl3.LogMel()(wave[None])[0, 0].numpy(), expected, rtol=0, atol=1e-3)
    assert expected.shape == (256, 199)


def test_passt_and_openl3_have_the_published_sizes() -> None:
    with torch.device("meta"):
        net = passt.Net()
    head = 768 * 527 + 527  # of the distillation token, in the file and not used
    assert sum(p.numel() for p in net.parameters()) + head == 86_153_758
    assert sum(p.numel() for p in openl3.Net().parameters()) == 4_687_042


def test_a_blob_is_gits_hash(tmp_path: Path) -> None:
    path = tmp_path / "hello"
    path.write_text("hello\n")
    assert git_blob(path) == "ce013625030ba8dba906f756967f9e9ca394464a", (
        "echo hello | git hash-object --stdin"
    )


def test_missing_weights_name_file_hash_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path))
    for name, file, start in (
        ("vggish", "vggish-10086976.pth", "10086976"),
        ("panns-cnn14-16k", "Cnn14_16k_mAP=0.438.pth", "e2ee543a"),
        ("panns-cnn14-32k", "Cnn14_mAP=0.431.pth", "0dc499e4"),
        ("passt", "passt-s-f128-p16-s10-ap.476-swa.pt", "sha256 302903fa"),
        ("openl3", "torchopenl3_mel256_env_512.pth.tar", "git blob a37a0822"),
    ):
        with pytest.raises(AudioLDMError) as told:
            load_embedder(name)
        text = str(told.value)
        assert file in text and start in text and str(tmp_path) in text and "http" in text
    with pytest.raises(AudioLDMError, match=r"clap needs a folder.*clap-htsat-unfused"):
        load_embedder("clap")
    with pytest.raises(AudioLDMError, match=r"embedder='inception' is unknown.*yamnet"):
        load_embedder("inception")
    assert set(EMBEDDERS) >= {
        "yamnet",
        "vggish",
        "panns-cnn14-16k",
        "panns-cnn14-32k",
        "passt",
        "openl3",
        "clap",
    }


def test_weights_that_torch_hub_fetched_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    place = tmp_path / "hub" / "checkpoints" / "a.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert WeightFile("a.pt", digest(place), "nowhere").find() == place
    with pytest.raises(AudioLDMError, match="not 00000000"):
        WeightFile("a.pt", "0" * 64, "nowhere").find()
    with pytest.raises(AudioLDMError, match=str(tmp_path / "none")):
        WeightFile("b.pt", "0" * 64, "nowhere").find()


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
