"""The same net, start and noise through diffusers' schedulers and through these samplers."""

from functools import partial
from itertools import product
from math import exp

import diffusers
import pytest
import torch

from audioldm.diffusion import samplers as A
from audioldm.diffusion.prediction import as_denoiser, spread
from audioldm.diffusion.schedule import HIGHEST, FlowPath, audioldm, zero_terminal_snr

pytestmark = pytest.mark.parity

SCHEDULE = audioldm()
NUMBERS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
THEIR_NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SHAPE = (3, 2, 3, 2)


def net(x, t):
    """Bounded, nonlinear, aware of time: any function will do, since both sides ask the same one."""
    t = torch.as_tensor(t, dtype=x.dtype).expand(x.shape[0])
    return 0.8 * torch.tanh(x) + 0.3 * spread((t / 150).sin(), x)


def timeless(x, t):
    return 0.8 * torch.tanh(x)


def generator():
    return torch.Generator().manual_seed(11)


def start():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def make(kind, prediction="eps", **options):
    """A real scheduler with our float64 table, so that the float32 of theirs is not what is compared."""
    scheduler = getattr(diffusers, kind)(**NUMBERS, prediction_type=THEIR_NAMES[prediction], **options)
    scheduler.alphas_cumprod = SCHEDULE.alphas_cumprod
    return scheduler


def walk(scheduler, x, call, **options):
    for t in scheduler.timesteps:
        x = scheduler.step(call(scheduler.scale_model_input(x, t), t), t, x, **options).prev_sample
    return x


def close(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference < tolerance, f"{difference:.2e}"


def at_times(scheduler):
    """Sigmas of a scheduler that is told by times, in x_t coordinates."""
    times = torch.unique_consecutive(scheduler.timesteps.long())
    return torch.cat([SCHEDULE.sigmas[times], torch.zeros(1).double()])


def alpha_at(sigma):
    return SCHEDULE.alpha_of(sigma.double())


BY_TIME = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}, {}, A.ddim, False),
    "ddim, eta 0.6": ("DDIMScheduler", {"clip_sample": False}, {"eta": 0.6}, partial(A.ddim, eta=0.6), True),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}, {}, A.ddpm, True),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, {}, A.plms, False),
}


def noise_of(source, dtype=torch.float64):
    return lambda: torch.randn(SHAPE, generator=source, dtype=dtype)


# diffusers' DDIM and PNDM step back by T // n whatever the times; its PNDM averages v as if of one time
CASES_BY_TIME = [
    (name, spacing, prediction)
    for name, spacing, prediction in product(BY_TIME, ["leading", "trailing", "linspace"], ["eps", "v", "x0"])
    if (spacing != "linspace" or name == "ddpm") and (prediction == "eps" or name != "plms")
]


@pytest.mark.parametrize("steps", [2, 20])
@pytest.mark.parametrize(("name", "spacing", "prediction"), CASES_BY_TIME)
def test_samplers_told_by_times(name, steps, spacing, prediction):
    kind, options, step_options, ours, stochastic = BY_TIME[name]
    scheduler = make(kind, prediction, timestep_spacing=spacing, steps_offset=1, **options)
    scheduler.set_timesteps(steps)
    sigmas = at_times(scheduler)
    x, seeded = sigmas[0] * start(), {"generator": generator()} if stochastic else {}
    theirs = walk(scheduler, x * alpha_at(sigmas[0]), net, **step_options, **seeded)
    denoise = as_denoiser(net, SCHEDULE, prediction=prediction)
    close(ours(denoise, x, sigmas, noise=noise_of(generator())), theirs)


def test_ddpm_with_the_large_variance_at_every_trained_step():
    scheduler = make("DDPMScheduler", clip_sample=False, variance_type="fixed_large")
    scheduler.set_timesteps(1000)
    sigmas = at_times(scheduler)
    x = sigmas[0] * start()
    theirs = walk(scheduler, x * alpha_at(sigmas[0]), net, generator=generator())
    close(A.ddpm(as_denoiser(net, SCHEDULE), x, sigmas, noise=noise_of(generator()), large=1.0), theirs)


CURVATURE = A.curvature


def third_order(square, **options):
    """DPM++ 3M with another weight of the parabola's square term than its integral."""

    def run(*args, **more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(A, "curvature", square)
            return A.SAMPLERS["dpmpp_3m_sde"](*args, **options, **more)

    return run


DPM, UNI = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
SDE, ZERO = {"algorithm_type": "sde-dpmsolver++"}, {"final_sigmas_type": "zero"}
THIRD = {"solver_order": 3, "lower_order_final": False}
# their DPM++ 3M has coefficients of its own (test_orders)
BY_SIGMA = {
    "euler": ("EulerDiscreteScheduler", {}, A.SAMPLERS["euler"], False),
    "heun": ("HeunDiscreteScheduler", {}, A.heun, False),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}, A.SAMPLERS["euler_ancestral"], True),
    "dpmpp_2m": (DPM, {"solver_order": 2}, A.SAMPLERS["dpmpp_2m"], False),
    "dpmpp_2m_sde": (DPM, SDE, A.SAMPLERS["dpmpp_2m_sde"], True),
    "dpmpp_3m_sde": (
        DPM,
        {**SDE, **THIRD},
        third_order(lambda reach: (1 - exp(-reach) - reach) / reach**2 - 0.5),
        True,
    ),
    "dpmpp_3m_sde, eta 0": (
        DPM,
        THIRD,
        third_order(lambda reach: CURVATURE(reach) / 2, eta=0.0),
        False,
    ),
    "unipc, order 1": (UNI, {"solver_order": 1, **ZERO}, partial(A.unipc, order=1), False),
    "unipc": (UNI, {"solver_order": 2, **ZERO}, A.unipc, False),
    "unipc, order 3": (UNI, {"solver_order": 3, **ZERO}, partial(A.unipc, order=3), False),
}
# diffusers' Heun and ancestral Euler know no x0 prediction, and the latter no Karras grid
CASES_BY_SIGMA = [
    (name, spacing, prediction)
    for name, spacing, prediction in product(
        BY_SIGMA, ["leading", "trailing", "linspace", "karras"], ["eps", "v", "x0"]
    )
    if (prediction != "x0" or name not in ("heun", "euler_ancestral"))
    and (spacing != "karras" or name != "euler_ancestral")
]


@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize(("name", "spacing", "prediction"), CASES_BY_SIGMA)
def test_samplers_told_by_sigmas(name, steps, spacing, prediction):
    kind, options, ours, stochastic = BY_SIGMA[name]
    even = {"timestep_spacing": spacing, "steps_offset": 1}
    places = {"use_karras_sigmas": True} if spacing == "karras" else even
    scheduler = make(kind, prediction, **options, **places)
    scheduler.set_timesteps(steps)
    # on Karras' grid diffusers rounds t for the net, so that the net must not look at it
    call = timeless if spacing == "karras" else net
    sigmas = torch.unique_consecutive(scheduler.sigmas.double())
    x, seeded = sigmas[0] * start(), {"generator": generator()} if stochastic else {}
    theirs = walk(scheduler, x * alpha_at(sigmas[0]) if kind in (DPM, UNI) else x, call, **seeded)
    draw = noise_of(generator(), torch.float32 if kind == DPM else torch.float64)
    # their sigmas and, for Euler and Heun, their state are float32
    close(ours(as_denoiser(call, SCHEDULE, prediction=prediction), x, sigmas, noise=draw), theirs)


@pytest.mark.parametrize("steps", [1, 4])
def test_flow_euler(steps):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    u = scheduler.sigmas.double()
    sigmas = torch.where(u < 1, u / (1 - u), HIGHEST)
    theirs = walk_flow(scheduler, start())
    for ours in (A.SAMPLERS["flow_euler"], A.SAMPLERS["euler"]):
        got = ours(as_denoiser(net, FlowPath(), prediction="flow"), HIGHEST * start(), sigmas)
        close(got, theirs)  # HIGHEST stands for infinity: 1e-6 of the signal is missing


def walk_flow(scheduler, x):
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t), t, x).prev_sample
    return x


def with_boundary(denoise):
    """The consistency function of an LCM: mixes in x_t so that the answer at t = 0 is x itself (Luo et al. 2023)."""

    def jump(x, sigma):
        t, std = 10 * SCHEDULE.t_at(sigma.double()), 0.5
        total = t**2 + std**2
        x_t = x * spread(SCHEDULE.alpha_of(sigma.double()), x)
        return spread(std**2 / total, x) * x_t + spread(t / total.sqrt(), x) * denoise(x, sigma)

    return jump


@pytest.mark.parametrize("steps", [1, 4])
def test_consistency_sampling_is_lcm(steps):
    scheduler = make("LCMScheduler", clip_sample=False)
    scheduler.set_timesteps(steps)
    sigmas = at_times(scheduler)
    x, jump = sigmas[0] * start(), with_boundary(as_denoiser(net, SCHEDULE))
    theirs = walk(scheduler, x * alpha_at(sigmas[0]), net, generator=generator())
    close(A.consistency(jump, x, sigmas, noise=noise_of(generator())), theirs)


@pytest.mark.parametrize("steps", [2, 10])
def test_ve_sde_predictor(steps):
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_min=0.05, sigma_max=50.0)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    levels = scheduler.discrete_sigmas.double()
    sigmas = torch.cat([levels.flip(0), torch.zeros(1).double()])

    def denoise(x, sigma):
        return torch.tanh(x)

    x, seeded = 50 * start(), generator()
    theirs = x
    for i, t in enumerate(scheduler.timesteps):
        slope = (denoise(theirs, None) - theirs) / sigmas[i] ** 2
        out = scheduler.step_pred(slope, t, theirs, generator=seeded)
        theirs = out.prev_sample if i < steps - 1 else out.prev_sample_mean
    close(A.ve_sde(denoise, x, sigmas, noise=noise_of(generator()), rounds=0), theirs)


@pytest.mark.parametrize("steps", [1, 5])
def test_ddim_from_pure_noise(steps):
    """Zero terminal SNR with v: their start has no signal at all, ours one part in 2^20."""
    schedule = zero_terminal_snr(SCHEDULE)
    scheduler = make("DDIMScheduler", "v", clip_sample=False, timestep_spacing="trailing")
    scheduler.alphas_cumprod = schedule.alphas_cumprod
    scheduler.set_timesteps(steps)
    theirs = walk(scheduler, start(), net)
    sigmas = torch.cat([schedule.sigmas[scheduler.timesteps], torch.zeros(1).double()])
    got = A.ddim(as_denoiser(net, schedule, prediction="v"), sigmas[0] * start(), sigmas)
    close(got, theirs)
