"""YAML -> recipe: everything a training run depends on"""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Strict(BaseModel):
    """The base of every recipe: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(Strict):
    """How long and how fast: linear warm-up, then a cosine down to a hundredth of the peak.

    `share` is how far the result goes from the weights at the start to those at the end: a short run on other data forgets what the
    network knew, and the weights in between keep more of both (Wortsman et al. 2022).
    """

    steps: PositiveInt
    learning_rate: PositiveFloat
    warmup: float = 0.05
    weight_decay: float = 0.01
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = 0.999
    share: float = Field(default=1.0, gt=0, le=1)
    checkpoint_every_seconds: PositiveFloat = 180


class BaseRecipe(Strict):
    """What every recipe has; `seed` decides the data and the noise of every step."""

    schedule: Schedule
    seed: int = 0
    threads: PositiveInt = 2
    device: str = "cpu"
