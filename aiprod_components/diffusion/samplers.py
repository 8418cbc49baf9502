"""latents at one noise level, velocity -> latents at the next"""

from jaxtyping import Float
from torch import Tensor


def euler(
    x: Float[Tensor, "*shape"], *, velocity: Float[Tensor, "*shape"], sigma: Float[Tensor, "*levels"], next_sigma: Float[Tensor, "*levels"]
) -> Float[Tensor, "*shape"]:
    """One Euler step of dx/dsigma = velocity. Noise levels broadcast against x, so each token may be at its own."""
    return x + (next_sigma - sigma) * velocity
