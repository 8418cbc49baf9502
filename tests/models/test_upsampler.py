"""An upsampler gives the size asked for, moves nothing, and reads the weights of the days when there was one size."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig, blur_down

SCALES = [(2, 1), (3, 2), (3, 4), (4, 1), (1, 1)]


def untrained(*, numerator: int = 1, denominator: int = 1, temporal: bool = False) -> LatentUpsampler:
    torch.manual_seed(0)
    config = UpsamplerConfig(latent_channels=6, width=8, blocks=1, numerator=numerator, denominator=denominator, temporal=temporal)
    return LatentUpsampler(config).eval().requires_grad_(False)


def silence(network: LatentUpsampler) -> None:
    """Leaves the plain path alone: the last layer's weights begin at zero, its bias does not."""
    for parameter in network.leave.parameters():
        torch.nn.init.zeros_(parameter)


@pytest.mark.parametrize(("numerator", "denominator"), SCALES)
@pytest.mark.parametrize("temporal", [False, True])
def test_latents_come_out_at_the_scale_asked_for(numerator: int, denominator: int, temporal: bool):
    network = untrained(numerator=numerator, denominator=denominator, temporal=temporal)
    scaled = network(torch.randn(2, 6, 3, 4, 8))
    expected = (5 if temporal else 3, 4 * numerator // denominator, 8 * numerator // denominator)
    assert scaled.shape == (2, 6, *expected)
    assert network.config.size_of(3, 4, 8) == expected


@pytest.mark.parametrize(("numerator", "denominator"), SCALES)
def test_what_is_the_same_everywhere_stays_as_it_is_before_anything_is_learnt(numerator: int, denominator: int):
    network = untrained(numerator=numerator, denominator=denominator, temporal=True)
    silence(network)
    values = torch.randn(1, 6, 1, 1, 1)
    scaled = network(values.expand(1, 6, 3, 4, 4))
    torch.testing.assert_close(scaled, values.expand_as(scaled))


@pytest.mark.parametrize("denominator", [2, 3, 4])
def test_a_blurred_ramp_lies_where_it_lay(denominator: int):
    """The mean place of the positions that became one is where that one is, far from the borders."""
    ramp = torch.arange(48.0)
    blurred = blur_down(repeat(ramp, "w -> 1 1 1 h w", h=denominator), denominator=denominator)[0, 0, 0, 0]
    expected = rearrange(ramp, "(w d) -> w d", d=denominator).mean(dim=1)
    torch.testing.assert_close(blurred[3:-3], expected[3:-3])


def test_the_first_frame_stands_alone_in_time():
    network = untrained(temporal=True)
    silence(network)
    latents = torch.randn(1, 6, 3, 4, 4)
    torch.testing.assert_close(network(latents), latents[:, :, [0, 1, 1, 2, 2]], rtol=0, atol=0)


def test_the_network_adds_to_the_plain_path_at_every_scale():
    for numerator, denominator in SCALES:
        network = untrained(numerator=numerator, denominator=denominator, temporal=True)
        latents = torch.randn(1, 6, 3, 4, 4)
        before = network(latents)
        torch.nn.init.normal_(network.leave.weight)
        assert (network(latents) - before).std() > 0.1


@pytest.mark.parametrize(("height", "width", "field"), [(5, 4, "height"), (4, 6, "width")])
def test_a_size_that_would_not_be_whole_is_refused_by_name(height: int, width: int, field: str):
    network = untrained(numerator=3, denominator=4)
    with pytest.raises(InvalidRequestError, match=rf"height {height} and width {width}.*3/4.*{field} must be a multiple of 4") as caught:
        network(torch.randn(1, 6, 1, height, width))
    assert caught.value.field == field


def test_a_scale_that_can_be_shortened_asks_for_no_more_than_the_short_one():
    assert untrained(numerator=6, denominator=4)(torch.randn(1, 6, 1, 2, 4)).shape[3:] == (3, 6)


def test_the_shipped_weights_do_what_they_always_did():
    network = make_family("miniature").load("upsampler")
    assert isinstance(network, LatentUpsampler)
    latents = torch.randn(1, 64, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    x = network.expand(network.before(network.enter(latents)))
    x = rearrange(x, "b (c sh sw) t h w -> b c t (h sh) (w sw)", sh=2, sw=2)
    expected = repeat(latents, "b c t h w -> b c t (h sh) (w sw)", sh=2, sw=2) + network.leave(F.silu(network.after(x)))
    torch.testing.assert_close(network(latents), expected, rtol=0, atol=0)
    assert network(latents).shape == (1, 64, 3, 8, 10)
