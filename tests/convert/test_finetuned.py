"""What was trained further on a folder of sounds leaves as our folder, as diffusers', and as an original checkpoint."""

import pytest
import relatives
import soundfile
import torch
from diffusers import AudioLDMPipeline

from audioldm import recipes
from audioldm.adapters.files import read
from audioldm.pipeline.audioldm import AudioLDM


@pytest.fixture
def sounds(tmp_path):
    """Two tones, named."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(2):
        wave = 0.3 * torch.sin(2 * torch.pi * (300 + 200 * i) * torch.arange(16000) / 16000)
        soundfile.write(folder / f"{['low', 'high'][i]} tone.wav", wave.numpy(), 16000)
    return folder


def test_a_fine_tuned_checkpoint_is_exported_bit_equal_to_every_layout(
    command, pipe, vocabulary, sounds, tmp_path
):
    pipe.save_pretrained(tmp_path / "folder")
    (tmp_path / "tokenizer").symlink_to(vocabulary)
    assert command("export", tmp_path / "folder", "-o", tmp_path / "start.ckpt") == 0
    words = [
        f"ref={tmp_path}/start.ckpt", f"data.folder={sounds}", f"run_dir={tmp_path}/run", "data.seconds=0.64",
        "data.windows=1", "batch_size=2", "batches=2", "val_every=2", "task.warmup=1", "task.lr=1e-3", "threads=1",
        "callbacks.listen=null",
    ]  # fmt: skip
    assert command("train", "finetune/audioldm", *words) == 0
    model = tmp_path / "run" / "model"
    learned = AudioLDM.from_pretrained(model)
    weights = learned.unet.state_dict()
    assert any(not torch.equal(value, pipe.unet.state_dict()[key]) for key, value in weights.items())
    stock = AudioLDMPipeline.from_pretrained(str(model))
    assert command("export", model, "-o", tmp_path / "learned.ckpt") == 0
    original = AudioLDM.from_pretrained(tmp_path / "learned.ckpt")
    for name, net in (("stock", stock.unet), ("original", original.unet)):
        others = net.state_dict()
        assert weights.keys() == others.keys(), name
        assert all(torch.equal(value, others[key]) for key, value in weights.items()), name
    for part in ("vae", "vocoder"):
        before = getattr(pipe, part).state_dict()
        for other in (stock, original):
            after = getattr(other, part).state_dict()
            assert all(torch.equal(value, after[key]) for key, value in before.items()), part


@pytest.mark.filterwarnings("ignore:2 clips are too few")
def test_a_model_of_two_token_sequences_is_fine_tuned(command, pipe, sounds, tmp_path):
    """AudioLDM 2: each sequence reaches its attention as in generation, dropped ones are the empty prompt's."""
    relatives.two(pipe).save_pretrained(tmp_path / "two")
    words = [
        f"ref={tmp_path}/two", f"data.folder={sounds}", f"run_dir={tmp_path}/run", "data.seconds=0.64", "threads=1",
        "data.windows=1", "batch_size=2", "batches=2", "val_every=2", "task.warmup=1", "task.lr=1e-3",
        "task.kind=lora", "task.prior={prompt: a tone, clips: 1}", "callbacks.listen=null",
    ]  # fmt: skip
    experiment = recipes.build(recipes.load("finetune/audioldm", words))
    module, batch = experiment.module, next(iter(experiment.data.train_dataloader()))
    captioned = module.pipe.encode_text(["high tone", "low tone"])
    rows = [module.condition(batch, torch.Generator().manual_seed(0), drop=drop) for drop in (0.0, 1.0)]
    empty = module.pipe.encode_text(["", ""])
    for condition, wanted in ((rows[0], captioned), (rows[1], empty)):
        for part, mask in (("tokens", "mask"), ("tokens2", "mask2")):
            ours = (getattr(condition, part) * getattr(condition, mask)[..., None]).sum(1).sort(0).values
            real = getattr(wanted, mask)
            whole = getattr(wanted, part)
            theirs = (whole if real is None else whole * real[..., None]).sum(1).sort(0).values
            torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)  # the cache is float16
    assert command("train", "finetune/audioldm", *words) == 0
    assert read(tmp_path / "run" / "model" / "adapter.safetensors").base["unet"]


@pytest.mark.filterwarnings("ignore:2 clips are too few")
def test_tango_is_fine_tuned_whole(command, pipe, sounds, tmp_path, capsys):
    """Without CLAP: by captions, in its own schedule and prediction; a clip without a caption is named."""
    tango = relatives.write_tango(relatives.tango(pipe), tmp_path / "tango")
    words = [
        f"ref={tango}", f"data.folder={sounds}", f"run_dir={tmp_path}/run", "data.seconds=0.64", "threads=1",
        "data.windows=1", "batch_size=2", "batches=2", "val_every=2", "task.warmup=1", "task.lr=1e-3",
    ]  # fmt: skip
    assert command("train", "finetune/audioldm", *words) == 0
    before, after = AudioLDM.from_pretrained(tango), AudioLDM.from_pretrained(tmp_path / "run" / "model")
    assert (after.prediction, after.vae.config.scaling_factor) == ("v", before.vae.config.scaling_factor)
    assert torch.equal(after.schedule.betas, before.schedule.betas)
    assert tuple(after.unet.config.attention_head_dim) == tuple(before.unet.config.attention_head_dim)
    moved = zip(before.unet.state_dict().values(), after.unet.state_dict().values(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)
    for path in sounds.iterdir():
        path.rename(sounds / f"{len(path.stem)}.wav")
    capsys.readouterr()
    assert command("train", "finetune/audioldm", *words, f"run_dir={tmp_path}/other") == 2
    assert "has no caption, and" in capsys.readouterr().err
