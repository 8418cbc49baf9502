"""Samplers against the exact path of Gaussian data, and against the same methods written in other variables.

Data from N(mean, DEVIATION^2) have a flow that is known in closed form: x = (1 - s) mean + q z, q^2 = (1 - s)^2 DEVIATION^2 + s^2, for a z
that stays the same along the path.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from aiprod_components.calls import EVALUATIONS, Guidance, Sampling
from aiprod_components.diffusion.samplers import (
    SAMPLERS,
    Memory,
    Point,
    Sampler,
    advance,
    dpmpp_2m,
    euler,
    euler_ancestral,
    gradient_estimation,
    heun,
    res_2s,
)
from aiprod_components.diffusion.schedulers import SCHEDULERS

MEAN, DEVIATION = torch.tensor([1.5, -0.5, 0.3], dtype=torch.float64), 0.5
Z = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
DETERMINISTIC = [name for name in SAMPLERS if name != "euler_ancestral"]
adams_bashforth: Sampler = partial(gradient_estimation, gamma=1.5)

Velocity = Callable[[Tensor, Tensor], Tensor]


def spread(sigma: Tensor) -> Tensor:
    return ((1 - sigma) ** 2 * DEVIATION**2 + sigma**2).sqrt()


def on_path(sigma: float, *, z: Tensor = Z) -> Tensor:
    return (1 - sigma) * MEAN + spread(level(sigma)) * z


def gaussian_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """d/dsigma of the path through x: -mean + q'/q (x - (1 - sigma) mean)."""
    slope = (sigma - (1 - sigma) * DEVIATION**2) / spread(sigma) ** 2
    return slope * (x - (1 - sigma) * MEAN) - MEAN


def curved_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """An estimate of the data that is linear in nothing."""
    return torch.tanh(x * (1 + sigma)) * torch.exp(-sigma) + 0.3


def curved_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """On the path x = (1 - sigma) data + sigma noise with the estimate above, and anything where nothing is noise."""
    return torch.where(sigma > 0, (x - curved_denoiser(x, sigma)) / sigma, 7.0)


def level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


def no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler draws no noise")


def noise_from(seed: int, *, like: Tensor) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def noise_for(name: str, *, like: Tensor) -> Callable[[], Tensor]:
    return noise_from(3, like=like) if name == "euler_ancestral" else no_noise


def walk(
    sampler: Sampler, x: Tensor, *, levels: Iterable[Tensor], velocity: Velocity, draw_noise: Callable[[], Tensor] = no_noise
) -> list[Tensor]:
    """The points after every step."""
    point, points = Point(x, None), list[Tensor]()
    for sigma, next_sigma in itertools.pairwise(levels):
        step = sampler(point.x, sigma=sigma, next_sigma=next_sigma, memory=point.memory, draw_noise=draw_noise)
        point = advance(step, velocity=velocity)
        points.append(point.x)
    return points


def even(start: float, end: float, *, steps: int) -> list[Tensor]:
    return [level(start + (end - start) * step / steps) for step in range(steps + 1)]


def measured_order(sampler: Sampler, *, start: float, end: float, counts: Sequence[int] = (32, 64, 128)) -> float:
    """Minus the slope of log error over log steps, by least squares."""
    errors = list[float]()
    for count in counts:
        last = walk(sampler, on_path(start), levels=even(start, end, steps=count), velocity=gaussian_velocity)[-1]
        errors.append((last - on_path(end)).norm().item())
    steps, error = torch.tensor(counts).double().log(), torch.tensor(errors).double().log()
    return -(((steps - steps.mean()) * (error - error.mean())).sum() / (steps - steps.mean()).square().sum()).item()


def test_the_closed_form_is_a_solution_of_its_flow():
    step = 1e-5
    for sigma in (0.05, 0.4, 0.99):
        slope = (on_path(sigma + step) - on_path(sigma - step)) / (2 * step)
        torch.testing.assert_close(gaussian_velocity(on_path(sigma), level(sigma)), slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(euler, 1), (heun, 2), (dpmpp_2m, 2), (res_2s, 2), (gradient_estimation, 1), (adams_bashforth, 2)],
    ids=["euler", "heun", "dpmpp_2m", "res_2s", "gradient_estimation", "adams_bashforth"],
)
def test_samplers_converge_at_their_order_between_two_levels(sampler: Sampler, order: int):
    # Measured 0.99, 1.98, 2.00, 2.01, 0.95 and 2.02.
    assert measured_order(sampler, start=0.9, end=0.1) == pytest.approx(order, abs=0.08)


@pytest.mark.parametrize(
    ("sampler", "lowest", "highest"),
    [
        (euler, 0.95, 1.05),
        (heun, 1.95, 2.1),
        # Even steps are ever longer in log-SNR towards 1 and 0, which costs these two a factor log(steps).
        (dpmpp_2m, 1.5, 2.0),
        (res_2s, 1.9, 2.05),
        (gradient_estimation, 0.85, 1.05),
        (adams_bashforth, 1.95, 2.1),
    ],
    ids=["euler", "heun", "dpmpp_2m", "res_2s", "gradient_estimation", "adams_bashforth"],
)
def test_samplers_converge_from_pure_noise_to_data(sampler: Sampler, lowest: float, highest: float):
    assert lowest < measured_order(sampler, start=1.0, end=0.0) < highest


@pytest.mark.parametrize(("sampler", "order"), [(euler, 2), (heun, 3), (res_2s, 3)], ids=["euler", "heun", "res_2s"])
def test_a_first_step_from_pure_noise_errs_by_one_order_more(sampler: Sampler, order: int):
    def error(length: float) -> float:
        (arrived,) = walk(sampler, Z, levels=[level(1.0), level(1 - length)], velocity=curved_velocity)
        exact = walk(heun, Z, levels=even(1.0, 1 - length, steps=100), velocity=curved_velocity)[-1]
        return (arrived - exact).norm().item()

    assert math.log2(error(0.02) / error(0.01)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if name not in ("euler", "gradient_estimation")])
def test_second_order_beats_euler_in_eight_steps(name: str):
    levels = even(0.9, 0.1, steps=8)
    errors = {
        each: (walk(SAMPLERS[each], on_path(0.9), levels=levels, velocity=gaussian_velocity)[-1] - on_path(0.1)).norm().item()
        for each in ("euler", name)
    }
    assert errors[name] < errors["euler"] / 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_exact_where_the_data_are_known(name: str):
    data, noise = torch.randn(2, 1, 2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = [level(sigma) for sigma in SCHEDULERS["shifted_flow"](7, shift=0.5)]

    def to_data(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - data) / sigma

    last = walk(SAMPLERS[name], noise, levels=levels, velocity=to_data, draw_noise=noise_for(name, like=noise))[-1]
    torch.testing.assert_close(last, data)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_ends_in_the_network_s_estimate_of_the_data(name: str):
    sigmas = SCHEDULERS["cosine"](5, shift=0.0)
    levels = [level(sigma) for sigma in sigmas]
    *_, before, last = walk(SAMPLERS[name], Z, levels=levels, velocity=curved_velocity, draw_noise=noise_for(name, like=Z))
    torch.testing.assert_close(last, curved_denoiser(before, level(sigmas[-2])))


def test_euler_is_ddim():
    def ddim(x: Tensor, *, alpha: Tensor, sigma: Tensor, next_alpha: Tensor, next_sigma: Tensor) -> Tensor:
        data = curved_denoiser(x, sigma)
        noise = (x - alpha * data) / sigma
        return next_alpha * data + next_sigma * noise

    levels = [level(sigma) for sigma in SCHEDULERS["cosine"](9, shift=0.0)]
    x = Z
    for (sigma, next_sigma), arrived in zip(
        itertools.pairwise(levels), walk(euler, Z, levels=levels, velocity=curved_velocity), strict=True
    ):
        x = ddim(x, alpha=1 - sigma, sigma=sigma, next_alpha=1 - next_sigma, next_sigma=next_sigma)
        torch.testing.assert_close(arrived, x)


def test_dpmpp_2m_is_its_paper_in_log_snr():
    def log_snr(sigma: float) -> float:
        return math.log((1 - sigma) / sigma)

    sigmas = [0.95, 0.8, 0.72, 0.4, 0.15]
    x, before = Z, Z
    arrived = walk(dpmpp_2m, Z, levels=[level(sigma) for sigma in sigmas], velocity=curved_velocity)
    for step, (sigma, next_sigma) in enumerate(itertools.pairwise(sigmas)):
        data, h = curved_denoiser(x, level(sigma)), log_snr(next_sigma) - log_snr(sigma)
        mixed = data
        if step > 0:
            ratio = (log_snr(sigma) - log_snr(sigmas[step - 1])) / h
            mixed = (1 + 1 / (2 * ratio)) * data - before / (2 * ratio)
        x, before = next_sigma / sigma * x - (1 - next_sigma) * math.expm1(-h) * mixed, data
        torch.testing.assert_close(arrived[step], x)


def test_res_2s_is_its_paper_in_log_snr():
    def phi_1(z: float) -> float:
        return math.expm1(z) / z

    def phi_2(z: float) -> float:
        return (phi_1(z) - 1) / z

    def scaled(x: Tensor, sigma: float) -> Tensor:
        return x / (1 - sigma)

    sigma, next_sigma = 0.8, 0.35
    start, end = math.log((1 - sigma) / sigma), math.log((1 - next_sigma) / next_sigma)
    h, middle = end - start, 1 / (1 + math.exp((start + end) / 2))
    first = curved_denoiser(Z, level(sigma))
    halfway = math.exp(-h / 2) * scaled(Z, sigma) + h / 2 * phi_1(-h / 2) * first
    second = curved_denoiser(halfway * (1 - middle), level(middle))
    expected = math.exp(-h) * scaled(Z, sigma) + h * ((phi_1(-h) - 2 * phi_2(-h)) * first + 2 * phi_2(-h) * second)
    (arrived,) = walk(res_2s, Z, levels=[level(sigma), level(next_sigma)], velocity=curved_velocity)
    torch.testing.assert_close(arrived, expected * (1 - next_sigma))


def test_res_2s_from_nearly_one_arrives_where_it_does_from_one():
    # The two middles differ; the weights must meet, or the step would jump between 1 and just below it.
    def arrived(sigma: float) -> Tensor:
        (x,) = walk(res_2s, Z, levels=[level(sigma), level(0.9)], velocity=gaussian_velocity)
        return x

    torch.testing.assert_close(arrived(1 - 1e-9), arrived(1.0), rtol=0, atol=0.01)


def test_heun_is_the_mean_of_the_slopes_at_both_ends():
    asked = list[tuple[Tensor, Tensor]]()

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append((x, sigma))
        return torch.full_like(x, 2.0 * len(asked))

    (arrived,) = walk(heun, Z, levels=[level(0.5), level(0.25)], velocity=velocity)
    torch.testing.assert_close(asked[1], (Z - 0.25 * 2, level(0.25)))
    torch.testing.assert_close(arrived, Z - 0.25 * 3)


@pytest.mark.parametrize(("gamma", "leap"), [(2.0, 0.0), (1.5, 1.0), (1.0, 2.0)])
def test_gradient_estimation_leans_on_the_change_of_the_velocity(gamma: float, leap: float):
    memory = Memory(torch.full_like(Z, 4.0), level(0.75))
    step = gradient_estimation(Z, sigma=level(0.5), next_sigma=level(0.25), memory=memory, draw_noise=no_noise, gamma=gamma)
    point = advance(step, velocity=lambda x, sigma: torch.full_like(x, 2.0))
    torch.testing.assert_close(point.x, Z - 0.25 * leap)
    assert point.memory is not None
    torch.testing.assert_close(point.memory.prediction, torch.full_like(Z, 2.0))


@pytest.mark.parametrize(("sigma", "next_sigma"), [(1.0, 0.7), (0.7, 0.5), (0.2, 0.15), (0.5, 0.0)])
def test_an_ancestral_step_has_the_noise_of_its_level_and_ddpm_s_share_of_the_old(sigma: float, next_sigma: float):
    count = 30_000
    data = torch.full((count,), 2.0, dtype=torch.float64)
    noise = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (arrived,) = walk(
        euler_ancestral,
        (1 - sigma) * data + sigma * noise,
        levels=[level(sigma), level(next_sigma)],
        velocity=lambda x, sigma: noise - data,
        draw_noise=noise_from(2, like=data),
    )
    found = arrived - (1 - next_sigma) * data
    # Five standard errors of a mean, and of a covariance of two normal variables.
    assert found.mean().item() == pytest.approx(0, abs=5 * next_sigma / math.sqrt(count) + 1e-12)
    assert found.std().item() == pytest.approx(next_sigma, abs=5 * next_sigma / math.sqrt(2 * count) + 1e-12)
    # In variance-exploding terms k = sigma / (1 - sigma) the old noise keeps a deviation of k'^2 / k (Song et al. 2021, eta 1).
    kept = 0.0 if sigma == 1 else (next_sigma / (1 - next_sigma)) ** 2 / (sigma / (1 - sigma)) * (1 - next_sigma)
    assert (found * noise).mean().item() == pytest.approx(kept, abs=5 * next_sigma * math.sqrt(2 / count) + 1e-12)


def test_ancestral_sampling_ends_in_the_distribution_of_the_data():
    count, steps = 10_000, 200
    start = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    levels = even(1.0, 0.0, steps=steps)
    data = walk(euler_ancestral, start, levels=levels, velocity=gaussian_velocity, draw_noise=noise_from(6, like=start))[-1]
    # Five standard errors, and the first-order error of so many steps: the network's estimate has less spread than the data it is of.
    sampling, stepping = 5 * DEVIATION / math.sqrt(count), 2 * DEVIATION / steps
    torch.testing.assert_close(data.mean(0), MEAN, rtol=0, atol=sampling)
    torch.testing.assert_close(data.std(0), torch.full_like(MEAN, DEVIATION), rtol=0, atol=sampling / math.sqrt(2) + stepping)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULERS)
def test_a_pinned_token_does_not_move_and_nothing_is_nan(name: str, dtype: torch.dtype, schedule: str):
    x = torch.randn(1, 2, 3, 2, 2, dtype=dtype, generator=torch.Generator().manual_seed(4))
    freedom = torch.tensor([0.0, 0.5, 1.0], dtype=dtype).reshape(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2)
    levels = [freedom * sigma for sigma in SCHEDULERS[schedule](6, shift=1.0)]
    points = walk(SAMPLERS[name], x, levels=levels, velocity=curved_velocity, draw_noise=noise_for(name, like=x))
    assert len(points) == 6
    for before, after in itertools.pairwise([x, *points]):
        assert after.isfinite().all() and after.dtype == dtype
        assert torch.equal(after[:, :, 0], x[:, :, 0])
        assert (after[:, :, 1:] != before[:, :, 1:]).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_half_free_token_goes_as_if_it_were_alone(name: str):
    freedom = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    sigmas = SCHEDULERS["shifted_flow"](6, shift=0.5)
    noise = [torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    together, half = iter(noise), iter([each[1:2] for each in noise])
    all_of_them = walk(
        SAMPLERS[name],
        Z,
        levels=[freedom * sigma for sigma in sigmas],
        velocity=curved_velocity,
        draw_noise=lambda: next(together),
    )
    alone = walk(
        SAMPLERS[name], Z[1:2], levels=[level(sigma / 2) for sigma in sigmas], velocity=curved_velocity, draw_noise=lambda: next(half)
    )
    torch.testing.assert_close(torch.stack(all_of_them)[:, 1:2], torch.stack(alone))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_half_free_token_arrives_where_the_flow_leads(name: str):
    freedom = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    levels = [freedom * sigma for sigma in even(1.0, 0.0, steps=60)]
    start = torch.stack([on_path(sigma)[token] for token, sigma in enumerate(freedom.tolist())])
    last = walk(SAMPLERS[name], start, levels=levels, velocity=gaussian_velocity)[-1]
    torch.testing.assert_close(last, on_path(0.0), rtol=0, atol=0.04)


def test_both_tables_name_the_same_samplers():
    assert SAMPLERS.keys() == EVALUATIONS.keys()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_asks_as_often_as_the_table_says_and_the_last_once(name: str):
    counts = list[int]()
    sigmas = SCHEDULERS["shifted_flow"](5, shift=0.0)
    memory: Memory | None = None
    for sigma, next_sigma in itertools.pairwise(sigmas):
        asked = list[float]()

        def velocity(x: Tensor, sigma: Tensor, *, asked: list[float] = asked) -> Tensor:
            asked.append(sigma.item())
            return gaussian_velocity(x, sigma)

        step = SAMPLERS[name](Z, sigma=level(sigma), next_sigma=level(next_sigma), memory=memory, draw_noise=noise_for(name, like=Z))
        memory = advance(step, velocity=velocity).memory
        assert asked[0] == sigma and all(next_sigma <= each <= sigma for each in asked) and 0 not in asked
        counts.append(len(asked))
    assert counts == [EVALUATIONS[name]] * 4 + [1]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(
    "guidance",
    [Guidance(), Guidance(3.0), Guidance(3.0, stg_scale=1.0, stg_blocks=(2,)), Guidance(3.0, interval=(0.3, 0.85))],
    ids=["alone", "guided", "skipped", "interval"],
)
def test_network_calls_are_the_questions_times_their_passes(name: str, steps: int, guidance: Guidance):
    sampling = Sampling(SCHEDULERS["shifted_flow"](steps, shift=0.0), guidance, seed=0, sampler=name)
    calls = 0
    for sigma, next_sigma in itertools.pairwise(sampling.sigmas):
        passes = len(guidance.passes_at(sigma))

        def velocity(x: Tensor, sigma: Tensor, *, passes: int = passes) -> Tensor:
            nonlocal calls
            calls += passes
            return gaussian_velocity(x, sigma)

        step = SAMPLERS[name](Z, sigma=level(sigma), next_sigma=level(next_sigma), memory=None, draw_noise=noise_for(name, like=Z))
        advance(step, velocity=velocity)
    assert sampling.network_calls == calls > 0


def test_an_error_of_the_network_is_not_taken_for_the_end_of_the_step():
    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        raise StopIteration("from the network")

    with pytest.raises(StopIteration, match="from the network"):
        advance(euler(Z, sigma=level(0.5), next_sigma=level(0.2), memory=None, draw_noise=no_noise), velocity=velocity)
