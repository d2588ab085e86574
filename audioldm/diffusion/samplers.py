"""All samplers by name, with one signature: (denoise, x, sigmas, *, noise=None, on_step=None) -> x.

``x`` (B, ...) starts at level sigmas[0] (that is sigmas[0] times unit noise) and comes back at level sigmas[-1];
nothing is kept between calls.   ``noise`` is for the stochastic ones; some take more options of their own.
"""

from audioldm.diffusion.solvers import (
    adaptive,
    consistency,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_3m_sde,
    euler,
    euler_ancestral,
    flow_euler,
    flow_midpoint,
    heun,
    plms,
    unipc,
    ve_sde,
    vp_sde,
)
from audioldm.diffusion.table import Entry

DDPM, DDIM = "Ho et al. 2020, arXiv:2006.11239", "Song et al. 2021, arXiv:2010.02502"
EDM, DPM = "Karras et al. 2022, arXiv:2206.00364", "Lu et al. 2022, arXiv:2211.01095"
SDE, UNIPC = "Song et al. 2021, arXiv:2011.13456", "Zhao et al. 2023, arXiv:2302.04867"
PNDM, LCM = "Liu et al. 2022, arXiv:2202.09778", "Song et al. 2023, arXiv:2303.01469"
FLOW, MATCHING = "Liu et al. 2023, arXiv:2209.03003", "Lipman et al. 2023, arXiv:2210.02747"
ETA = {"eta": (0.0, 1.0)}
# 2 size^2 of the way to x0 a round: beyond 1 it would overshoot
LANGEVIN = {"rounds": (0, 100), "size": (0, 0.7)}

SAMPLERS: dict[str, Entry] = {
    "ddpm": Entry(
        ddpm, "Ancestral: draws from the posterior of each step.", DDPM, True, limits={"large": (0, 1)}
    ),
    "ddim": Entry(ddim, "Deterministic (eta 0) to ancestral (eta 1).", DDIM, limits=ETA),
    "euler": Entry(euler, "Euler steps on the probability-flow ODE.", EDM),
    "euler_ancestral": Entry(
        euler_ancestral, "Euler down, then noise up.", EDM + " (k-diffusion)", True, limits=ETA
    ),
    "heun": Entry(heun, "Second order, two calls per step.", EDM, calls="2"),
    "dpmpp_2m": Entry(dpmpp_2m, "Second order from two remembered answers.", DPM),
    "dpmpp_2m_sde": Entry(dpmpp_2m_sde, "DPM++ 2M on the reverse SDE.", DPM, True),
    "dpmpp_3m_sde": Entry(dpmpp_3m_sde, "DPM++ with three remembered answers on the reverse SDE.", DPM, True),
    "unipc": Entry(unipc, "Predictor and corrector that share their calls.", UNIPC, limits={"order": (1, 3)}),
    "plms": Entry(plms, "Adams-Bashforth on the noise (PNDM).", PNDM, calls="1, first step 2"),
    "adaptive": Entry(
        adaptive,
        "Dormand-Prince 5(4); chooses its steps by error.",
        SDE + " app. D.4",
        calls="6 per try",
        limits={"rtol": (1e-8, 1), "atol": (1e-8, 1), "most": (1, 100_000)},
    ),
    "consistency": Entry(consistency, "Jump to x0 and renoise; for consistency and LCM nets.", LCM, True),
    "flow_euler": Entry(flow_euler, "Euler in the time of the straight path.", FLOW),
    "flow_midpoint": Entry(
        flow_midpoint, "Midpoint rule in the time of the straight path.", MATCHING, calls="2"
    ),
    "ve_sde": Entry(
        ve_sde, "Reverse VE-SDE with a Langevin corrector.", SDE, True, "1 + rounds", limits=LANGEVIN
    ),
    "vp_sde": Entry(
        vp_sde, "Reverse VP-SDE with a Langevin corrector.", SDE, True, "1 + rounds", limits=LANGEVIN
    ),
}
"""Samplers by name."""
