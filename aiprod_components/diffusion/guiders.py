"""predictions with and without the prompt -> one prediction"""

from jaxtyping import Float
from torch import Tensor


def classifier_free(
    conditional: Float[Tensor, "*shape"], unconditional: Float[Tensor, "*shape"], *, scale: float
) -> Float[Tensor, "*shape"]:
    """Away from what the prompt does not ask for (Ho & Salimans 2022): scale 1 is the conditional prediction itself."""
    return unconditional + scale * (conditional - unconditional)
