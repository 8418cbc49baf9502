"""estimates of the clean latents, with the prompt, without it and with a part of the network left out -> one estimate"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import Guidance, Pass, Projection


@dataclass(frozen=True)
class Guided:
    """The one estimate, and the running guidance for the next step's momentum (None without projection)."""

    denoised: Float[Tensor, "B *shape"]
    momentum: Float[Tensor, "B *shape"] | None


def combine(guidance: Guidance, denoised: Mapping[Pass, Tensor], *, momentum: Tensor | None, free: Tensor | None = None) -> Guided:
    """Away from the estimates (B ...) without the prompt and with a part left out; each sample of the batch for itself.

    `free` (None: all) is where a sample is still noisy. Only that counts in its size and deviation, so that a pinned frame, where all
    estimates are the same, does not change how the others are guided. The prompt's own alone comes back as it is. (Classifier-free
    guidance, Ho & Salimans 2022; spatiotemporal skip guidance, Hyung et al. 2024; at some noise levels only, Kynkäänniemi et al. 2024.)
    """
    conditional = denoised["conditional"]
    if len(denoised) == 1:
        return Guided(conditional, momentum)
    counted = None if free is None else free.to(conditional.dtype).expand_as(conditional)
    result = conditional
    if "unconditional" in denoised:
        difference = conditional - denoised["unconditional"]
        if guidance.projection is not None:
            momentum = accumulated(difference, running=momentum, projection=guidance.projection)
            difference = bounded(momentum, guidance.projection, counted=counted)
            difference = projected(difference, conditional, parallel=guidance.projection.parallel, counted=counted)
        result = result + (guidance.scale - 1) * difference
    if "perturbed" in denoised:
        result = result + guidance.stg_scale * (conditional - denoised["perturbed"])
    if "isolated" in denoised:
        result = result + (guidance.modality_scale - 1) * (conditional - denoised["isolated"])
    return Guided(rescaled(result, like=conditional, rescale=guidance.rescale, counted=counted), momentum)


def accumulated(
    difference: Float[Tensor, "B *shape"], *, running: Float[Tensor, "B *shape"] | None, projection: Projection
) -> Float[Tensor, "B *shape"]:
    """The difference plus `momentum` times the sum so far; below 0 that dampens what every step says again."""
    return difference if running is None else difference + projection.momentum * running


def bounded(
    difference: Float[Tensor, "B *shape"], projection: Projection, *, counted: Float[Tensor, "B *shape"] | None
) -> Float[Tensor, "B *shape"]:
    """No sample's root mean square over what is counted is above `threshold` (0: as it is)."""
    if projection.threshold == 0:
        return difference
    size = _mean(difference.square(), counted).sqrt()
    return difference * torch.where(size > projection.threshold, projection.threshold / size, 1.0)


def projected(
    difference: Float[Tensor, "B *shape"], along: Float[Tensor, "B *shape"], *, parallel: float, counted: Float[Tensor, "B *shape"] | None
) -> Float[Tensor, "B *shape"]:
    """Of each sample, the part orthogonal to `along` and `parallel` times the rest, which oversaturates (Sadat et al. 2024)."""
    length = _mean(along.square(), counted)
    share = torch.where(length > 0, _mean(difference * along, counted) / length, 0.0)
    return difference + (parallel - 1) * share * along


def rescaled(
    result: Float[Tensor, "B *shape"], *, like: Float[Tensor, "B *shape"], rescale: float, counted: Float[Tensor, "B *shape"] | None
) -> Float[Tensor, "B *shape"]:
    """Each sample's standard deviation brought back to that of `like`: wholly at rescale 1 (Lin et al. 2023, section 3.4)."""
    if rescale == 0:
        return result
    wanted, found = _deviation(like, counted), _deviation(result, counted)
    ratio = torch.where(found > 0, wanted / found, 1.0)
    return rescale * (result * ratio) + (1 - rescale) * result


def _deviation(x: Float[Tensor, "B *shape"], counted: Float[Tensor, "B *shape"] | None) -> Float[Tensor, "B *ones"]:
    """Only ratios of two of them are taken, so it is all one whether it is that of a sample or estimated from it."""
    if counted is None:
        return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
    return _mean((x - _mean(x, counted)).square(), counted).sqrt()


def _mean(x: Float[Tensor, "B *shape"], counted: Float[Tensor, "B *shape"] | None) -> Float[Tensor, "B *ones"]:
    """Of each sample, over what is counted (None: all); 0 where nothing is."""
    within_sample = tuple(range(1, x.ndim))
    if counted is None:
        return x.mean(dim=within_sample, keepdim=True)
    return (x * counted).sum(dim=within_sample, keepdim=True) / counted.sum(dim=within_sample, keepdim=True).clamp(min=1)
