"""Samplers: those of diffusers, deterministic, from any start, and turned round."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from s2v_cli.errors import OptionError, WeightsError
from s2v_cli.generators.sampler import CLASSES, DETERMINISTIC, ddim_steps, make_sampler, shorten
from tests import tiny_diffusion

CPU = torch.device("cpu")
PNDM = {**tiny_diffusion.PNDM, "_class_name": "PNDMScheduler", "prediction_type": "v_prediction"}


def predict(latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """A smooth stand-in for the denoiser's output."""
    return torch.tanh(latents.roll(1, -1)) * (0.5 + float(time) / 2000)


def walk(sampler: Any, latents: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    for time in times:
        output = predict(sampler.scale_model_input(latents, time), time)
        latents = sampler.step(output, time, latents, return_dict=False)[0]
    return latents


def draw_latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("choice", CLASSES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_sampler_walks_by_the_models_settings_and_without_chance(
    choice: str, prediction: str
) -> None:
    settings = {**PNDM, "prediction_type": prediction}
    before = torch.random.get_rng_state()
    ends = []
    for _ in range(2):
        sampler = make_sampler(settings, choice, 8, CPU)
        assert type(sampler).__name__ == CLASSES[choice]
        assert sampler.config.prediction_type == prediction
        assert sampler.config.beta_end == PNDM["beta_end"]
        latents = draw_latents() * sampler.init_noise_sigma
        ends.append(walk(sampler, latents, sampler.timesteps))
    assert torch.equal(ends[0], ends[1])
    assert ends[0].isfinite().all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_all_samplers_solve_one_equation() -> None:
    """With many steps they end at nearly the same place, so none misreads the schedule."""
    ends = {}
    for choice in CLASSES:
        sampler = make_sampler(PNDM, choice, 100, CPU)
        ends[choice] = walk(sampler, draw_latents() * sampler.init_noise_sigma, sampler.timesteps)
    reference = ends.pop("heun")
    for choice, end in ends.items():
        assert (end - reference).norm() < 0.1 * reference.norm(), choice


@pytest.mark.parametrize("own", DETERMINISTIC)
def test_the_default_is_the_models_own(own: str) -> None:
    settings = {**PNDM, "_class_name": own}
    assert type(make_sampler(settings, "default", 4, CPU)).__name__ == own


@pytest.mark.parametrize("own", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", ""])
def test_ddim_stands_in_for_samplers_that_draw_numbers(own: str) -> None:
    sampler = make_sampler({**PNDM, "_class_name": own}, "default", 4, CPU)
    assert type(sampler).__name__ == "DDIMScheduler"
    assert not sampler.config.clip_sample
    noisy = {**PNDM, "_class_name": "DPMSolverMultistepScheduler"}
    noisy["algorithm_type"] = "sde-dpmsolver++"
    assert make_sampler(noisy, "default", 4, CPU).config.algorithm_type == "dpmsolver++"


@pytest.mark.parametrize("choice", CLASSES)
def test_walks_that_start_part_of_the_way_end_where_whole_ones_do(choice: str) -> None:
    """Exactly for samplers without memory; nearly for those that build on earlier steps."""
    sampler = make_sampler(PNDM, "ddim", 40, CPU)
    steps = ddim_steps(sampler)
    latents = draw_latents()
    for time in sampler.timesteps[:20]:
        latents = sampler.step(predict(latents, time), time, latents, return_dict=False)[0]
    expected = walk(sampler, latents, sampler.timesteps[20:])
    part = make_sampler(PNDM, choice, 40, CPU)
    times = shorten(part, 40, 20)
    assert abs(float(times[0]) - steps[20].time) < 30
    assert len(times) == {"heun": 40, "pndm": 21}.get(choice, 20) - (choice == "heun")
    if choice in ("euler", "heun"):  # their latents are picture + sigma noise, unscaled
        latents = latents * (1 + float(part.sigmas[part.index_for_timestep(times[0])]) ** 2) ** 0.5
    end = walk(part, latents, times)
    assert (end - expected).norm() < 0.15 * expected.norm()
    assert torch.equal(shorten(make_sampler(PNDM, choice, 40, CPU), 40, 40)[:1], part.timesteps[:1])


@pytest.mark.parametrize("choice", CLASSES)
def test_one_step_is_a_walk_too(choice: str) -> None:
    sampler = make_sampler(PNDM, choice, 5, CPU)
    times = shorten(sampler, 5, 1)
    start = sampler.add_noise(draw_latents(1), draw_latents(), times[:1])
    assert len(times) == 1
    assert walk(sampler, start, times).isfinite().all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_steps_of_ddim_are_diffusers_own_and_turn_round(prediction: str) -> None:
    sampler = make_sampler({**PNDM, "prediction_type": prediction}, "ddim", 10, CPU)
    latents = draw_latents()
    for step, time in zip(ddim_steps(sampler), sampler.timesteps, strict=True):
        output = predict(latents, time)
        after = sampler.step(output, time, latents, return_dict=False)[0]
        assert step.time == int(time)
        assert torch.allclose(step.keep * latents + step.turn * output, after, atol=1e-4)
        assert torch.allclose(step.backward(after, output), latents, atol=1e-4)
        latents = after


@pytest.mark.parametrize(("choice", "steps"), [("ddim", 1000), ("pndm", 1000), ("ddim", 600)])
def test_steps_that_do_not_fit_are_refused(choice: str, steps: int) -> None:
    with pytest.raises(OptionError, match=f"steps is {steps}; .* a number that divides 1000"):
        make_sampler(PNDM, choice, steps, CPU)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 100, 200, 250, 500])
@pytest.mark.parametrize("choice", CLASSES)
def test_steps_that_fit_are_taken(choice: str, steps: int) -> None:
    assert len(make_sampler(PNDM, choice, steps, CPU).timesteps) >= steps


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prediction_type": "sample"}, "predicts 'sample'"),
        ({"beta_schedule": "unheard"}, "do not fit PNDMScheduler"),
        ({"timestep_spacing": "unheard"}, "do not fit PNDMScheduler"),
    ],
)
def test_settings_that_diffusers_does_not_know_are_refused(
    changes: dict[str, str], said: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        make_sampler({**PNDM, **changes}, "default", 4, CPU)
    assert said in str(caught.value) and "\n" not in str(caught.value)
