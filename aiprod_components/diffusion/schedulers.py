"""number of steps and tokens -> sigmas, falling from 1 to 0"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenShift:
    """More tokens need more of the time spent at high noise: the shift in log-SNR grows linearly with their number.

    (Esser et al. 2024, section 5.3.2, as a line through two points as in LTX-Video, HaCohen et al. 2024.)
    """

    few_tokens: int
    few_shift: float
    many_tokens: int
    many_shift: float

    def at(self, num_tokens: int) -> float:
        """The shift for so many tokens: linear between the two that are named, and beyond them."""
        slope = (self.many_shift - self.few_shift) / (self.many_tokens - self.few_tokens)
        return self.few_shift + slope * (num_tokens - self.few_tokens)


def shifted_flow(num_inference_steps: int, *, shift: float) -> tuple[float, ...]:
    """Evenly spaced times in (0, 1], the log-odds of each moved by `shift`: sigma = 1 / (1 + (1/t - 1) e^-shift); then 0."""
    times = [1 - step / num_inference_steps for step in range(num_inference_steps)]
    return (*(1 / (1 + (1 / t - 1) * math.exp(-shift)) for t in times), 0.0)
