"""Samplers of diffusion models: deterministic ones only, so that a seed is a picture.

A sampler is a scheduler of diffusers, built anew for every walk from the settings of the model's
own scheduler: its noise schedule, what its network predicts, how its steps are spaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2v_cli.errors import OptionError, WeightsError
from s2v_cli.weights.component import quiet_libraries

# Classes that draw no random numbers while they walk, and so may be a model's default.
DETERMINISTIC = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
PREDICTIONS = ("epsilon", "v_prediction")  # what every class below can step by
CLASSES = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
# What a model's settings may not say for a class other than its own; without it diffusers would
# clip latents as if they were pixels, or begin with Runge-Kutta steps.
_OVERRIDES: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": False, "thresholding": False},
    "DPMSolverMultistepScheduler": {"algorithm_type": "dpmsolver++", "thresholding": False},
    "PNDMScheduler": {"skip_prk_steps": True},
    "UniPCMultistepScheduler": {"thresholding": False},
}
_COVERAGE = 0.75  # of the noise schedule that many steps must cover at least
_MANY_STEPS = 100


def make_sampler(settings: Mapping[str, Any], choice: str, steps: int, device: torch.device) -> Any:
    """A scheduler of diffusers with its steps set.

    Args:
        settings: of the model's own scheduler, as its `scheduler_config.json` holds them.
        choice: a key of `CLASSES`, or `default` for the model's own class; where that draws
            random numbers DDIM takes its place.
        steps: how many.
        device: where its tables lie.

    Raises:
        OptionError: so many steps do not fit into the model's noise schedule.
        WeightsError: settings that diffusers does not understand.
    """
    import diffusers

    predicted = settings.get("prediction_type", "epsilon")
    if predicted not in PREDICTIONS:
        raise WeightsError(
            f"The model predicts {predicted!r}; known are: {', '.join(PREDICTIONS)}."
        )
    own = str(settings.get("_class_name", ""))
    name = CLASSES.get(choice) or (own if own in DETERMINISTIC else "DDIMScheduler")
    changes = dict(_OVERRIDES.get(name, {}))
    if choice == "default" and name == own:  # as published, but without noise on the way
        changes = {}
        if "sde" in str(settings.get("algorithm_type", "")):
            changes["algorithm_type"] = "dpmsolver++"
    elif name == "DDIMScheduler" and "set_alpha_to_one" not in settings:
        changes["set_alpha_to_one"] = False  # as Stable Diffusion is sampled
    try:
        with quiet_libraries():
            sampler = getattr(diffusers, name).from_config(dict(settings), **changes)
            sampler.set_timesteps(steps, device=device)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise WeightsError(
            f"The scheduler settings of the model do not fit {name}: {str(error).splitlines()[0]}"
        ) from error
    _check_steps(sampler, steps, choice)
    return sampler


def _check_steps(sampler: Any, steps: int, choice: str) -> None:
    """Refuse step counts whose whole strides leave the noise schedule, or much of it unused."""
    total = int(sampler.config.num_train_timesteps)
    first = float(sampler.timesteps.max())
    if first >= total or (steps > _MANY_STEPS and first < _COVERAGE * total):
        raise OptionError(
            f"steps is {steps}; the sampler {choice!r} of this model strides over whole steps of "
            f"{total}, allowed: up to {_MANY_STEPS}, or a number that divides {total}, but not "
            f"{total} itself."
        )


def shorten(sampler: Any, steps: int, kept: int) -> Tensor:
    """Timesteps of the last `kept` of a sampler's `steps`, for walks that start part of the way.

    PNDM visits its second timestep twice, wherever it starts; Heun visits each but the first
    twice.
    """
    times: Tensor = sampler.timesteps
    skipped = steps - kept
    if skipped <= 0:
        return times
    if type(sampler).__name__ == "PNDMScheduler" and sampler.config.skip_prk_steps:
        single = torch.cat([times[:1], times[2:]])[skipped:]
        return torch.cat([single[:1], single[1:2], single[1:]])
    return times[skipped * sampler.order :]


@dataclass(frozen=True)
class DdimStep:
    """One step of DDIM without noise: x_prev = keep x_t + turn m, with m the network's output.

    Song et al. (2021), Eq. 12 with sigma 0. Linear in x_t, so it can be turned round.
    """

    time: int
    keep: float
    turn: float

    def backward(self, latents: Tensor, output: Tensor) -> Tensor:
        """x_t from x_prev and the network's output at x_t."""
        return (latents - self.turn * output) / self.keep


def ddim_steps(sampler: Any) -> list[DdimStep]:
    """The steps of a DDIM scheduler, from noise to picture."""
    total = int(sampler.config.num_train_timesteps)
    stride = total // sampler.num_inference_steps
    steps = []
    for time in sampler.timesteps.tolist():
        # Level of x_t: sqrt(alpha) picture + sqrt(1 - alpha) noise; likewise of x_prev.
        alpha = float(sampler.alphas_cumprod[time])
        before = time - stride
        end = float(sampler.final_alpha_cumprod if before < 0 else sampler.alphas_cumprod[before])
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        signal_end, noise_end = end**0.5, (1 - end) ** 0.5
        if sampler.config.prediction_type == "v_prediction":
            keep = signal_end * signal + noise_end * noise
            turn = noise_end * signal - signal_end * noise
        else:
            keep = signal_end / signal
            turn = noise_end - keep * noise
        steps.append(DdimStep(time, keep, turn))
    return steps
