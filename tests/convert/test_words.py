"""Models that are told words one by one: from their files to sound, at toy size, in exactly the published layouts."""

import json

import pytest
import relatives
import soundfile as sf
import torch
from diffusers import DDPMScheduler

from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM

PROMPTS = ["a dog barking in the rain", "rain", "a bell"]
QUICK = {"seconds": 0.32, "steps": 2}
GENERATE = ("--seconds", "0.32", "--steps", "2", "--set", "figure=false")


def refused(match: str):
    return pytest.raises(AudioLDMError, match=match)


@pytest.fixture(scope="module")
def places(pipe, vocabulary, tmp_path_factory):
    """Every relative as its file or folder, and as the pipeline that it was made from."""
    folder = tmp_path_factory.mktemp("relatives")
    (folder / "tokenizer").symlink_to(vocabulary)
    models = {name: getattr(relatives, name)(pipe) for name in ("cross", "two", "high", "tango")}
    models["cross"].token_encoder.tokenizer.save_pretrained(folder / "tokenizer_2")
    places = {}
    for name, model in models.items():
        if name == "tango":
            places[name] = (relatives.write_tango(model, folder / "tango"), model)
            continue
        path = folder / f"{model.name}.pth"
        torch.save({"state_dict": getattr(relatives, f"{name}_state")(model)}, path)
        places[name] = (path, model)
    return places


@pytest.mark.parametrize("name", ["cross", "two", "high", "tango"])
def test_a_relatives_file_sounds_as_its_nets(places, name, command, tmp_path):
    path, model = places[name]
    again = AudioLDM.from_pretrained(path)
    for part in ("unet", "vae", "vocoder"):
        for key, value in getattr(model, part).state_dict().items():
            assert torch.equal(getattr(again, part).state_dict()[key], value), key
    assert tuple(again.unet.config.attention_head_dim) == tuple(model.unet.config.attention_head_dim)
    assert (again.spec, again.prediction) == (model.spec, model.prediction)
    torch.testing.assert_close(
        again.schedule.betas, model.schedule.betas, atol=1e-8, rtol=0
    )  # float32 in files
    settings = {**vars(model.defaults), **QUICK}
    wave = model([PROMPTS[0]], seeds=[3], **settings)
    assert torch.equal(again([PROMPTS[0]], seeds=[3], **{**vars(again.defaults), **QUICK}), wave)
    assert wave.std() > 1e-3 and not torch.equal(again([PROMPTS[1]], seeds=[3], **QUICK), wave)

    assert command("generate", PROMPTS[0], "-m", path, "--seed", "3", *GENERATE, "-o", tmp_path) == 0
    sound, rate = sf.read(tmp_path / "a_dog_barking_in_the_rain_seed3.wav")
    assert rate == model.spec.rate == {"high": 48000}.get(name, 16000) and len(sound) == round(0.32 * rate)
    quantum = 2**-15  # 16 bits
    assert (torch.from_numpy(sound) - wave[0].clamp(-1, 1 - quantum)).abs().max() <= quantum

    assert command("export", path, "-o", tmp_path / "home") == 0
    home = AudioLDM.from_pretrained(tmp_path / "home")
    assert torch.equal(home([PROMPTS[0]], seeds=[3], **QUICK), wave), "and so does the folder made of it"
    assert not home.notice and home.about["licence"] == again.about["licence"]


@pytest.mark.parametrize("name", ["cross", "two", "tango"])
def test_a_seed_gives_the_same_sound_among_longer_prompts(places, name):
    pipe = places[name][1]
    alone = torch.cat([pipe([prompt], seeds=[i], **QUICK) for i, prompt in enumerate(PROMPTS)])
    assert torch.equal(pipe(PROMPTS, seeds=[0, 1, 2], **QUICK), alone)
    together = pipe(PROMPTS, seeds=[0, 1, 2], batch_size=3, **QUICK)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)  # other kernels for another batch size
    mixed = [pipe.encode_text([PROMPTS[0]]), *PROMPTS[1:]]
    assert torch.equal(pipe(mixed, seeds=[0, 1, 2], **QUICK), alone)
    away = pipe([PROMPTS[0]], seeds=[0], negative="wind and water", **QUICK)
    assert not torch.allclose(away, alone[:1], atol=1e-4)


def test_what_needs_a_clap_vector_is_refused(places, command, tmp_path, capsys):
    run = ("generate", "rain", "-m", places["tango"][0], *GENERATE, "-o", tmp_path)
    assert command(*run, "--set", "rerank=2") == 2
    assert "rerank needs a CLAP that hears" in capsys.readouterr().err
    assert command(*run, "--interpolate-to", "wind") == 0, "the words of one prompt, then of the other"


def test_audioldm_2_has_zeros_for_the_empty_prompt_as_its_original(places):
    nothing = places["two"][1].encode_text([""])
    assert nothing.tokens.shape == (1, 8, 48) and not nothing.tokens.any()
    assert nothing.mask.all() and nothing.tokens2.shape == (1, 1, 40)


def test_the_clap_of_a_t5_model_still_scores(places, command, tmp_path):
    run = ("generate", "rain", "-m", places["cross"][0], *GENERATE, "--set", "rerank=2", "-o", tmp_path)
    assert command(*run) == 0
    sidecar = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert len(sidecar["settings"]["rerank"]["candidates"]) == 2


def relative(ours, theirs) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_stock_audioldm_2_gives_the_same_sound(places, tmp_path):
    pipe = places["two"][1]
    stock = relatives.stock_two(pipe)
    stock.save_pretrained(tmp_path)
    ours = AudioLDM.from_pretrained(tmp_path, heads="as-published")
    right = AudioLDM.from_pretrained(tmp_path)
    assert right.unet.config.attention_head_dim != 8 and ours.unet.config.attention_head_dim == 8
    settings = {"seconds": 0.64, "steps": 10, "guidance": 3.5, "sampler": "ddim", "grid": "published"}
    seed = 3
    shape = ours.spec.latent_shape(0.64, 2)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))[None]
    # ours starts from the level's own noise, sqrt(1 - alpha_bar) of theirs
    first = stock.scheduler.alphas_cumprod[901]
    wave = stock(
        PROMPTS[0], audio_length_in_s=0.64, num_inference_steps=10, guidance_scale=3.5,
        latents=noise * (1 - first).sqrt(), output_type="pt",
    ).audios  # fmt: skip
    sound = ours([PROMPTS[0]], seeds=[seed], **settings)
    # float32 in other orders of summation over 10 steps; stock keeps the vocoder's first 16 samples of 32 too many
    assert relative(sound[:, :-16], wave[:, 16:]) < 1e-4 and wave.std() > 1e-3
    other = right([PROMPTS[0]], seeds=[seed], **settings)
    assert relative(other[:, :-16], wave[:, 16:]) > 1e-3


def test_tango_is_sampled_as_its_own_code_does(places):
    """Its loop with diffusers' DDPMScheduler, its noise in the order of ours, guidance 3."""
    pipe, steps, seed = places["tango"][1], 8, 5
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    g = torch.Generator().manual_seed(seed)
    t5, unet = pipe.token_encoder, pipe.unet
    prompt = t5.tokenizer([PROMPTS[0]], return_tensors="pt")
    length = prompt.input_ids.shape[1]
    empty = t5.tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
    ids, mask = (torch.cat([empty[k], prompt[k]]) for k in ("input_ids", "attention_mask"))
    with torch.no_grad():
        states = t5.model(input_ids=ids, attention_mask=mask).last_hidden_state
        x = torch.randn(pipe.spec.latent_shape(0.64, 4), generator=g)[None]
        x = x * (1 - scheduler.alphas_cumprod[scheduler.timesteps[0]]).sqrt()
        for t in scheduler.timesteps:
            both = unet(
                torch.cat([x, x]), t, encoder_hidden_states=states, encoder_attention_mask=mask == 1
            ).sample
            away, to = both.chunk(2)
            x = scheduler.step(away + 3 * (to - away), t, x, generator=g).prev_sample
        theirs = pipe.decode(x, seconds=0.64)
    ours = pipe([PROMPTS[0]], seeds=[seed], seconds=0.64, steps=steps)
    assert relative(ours, theirs) < 1e-4 and theirs.std() > 1e-3  # float32, 8 steps
