"""YAML -> recipe: everything a training run depends on"""

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt


class Strict(BaseModel):
    """The base of every recipe: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(Strict):
    """How long and how fast: linear warm-up, then a cosine down to a hundredth of the peak."""

    steps: PositiveInt
    learning_rate: PositiveFloat
    warmup: float = 0.05
    weight_decay: float = 0.01
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = 0.999
    checkpoint_every_seconds: PositiveFloat = 180


class BaseRecipe(Strict):
    """What every recipe has; `seed` decides the data and the noise of every step."""

    schedule: Schedule
    seed: int = 0
    threads: PositiveInt = 2
    device: str = "cpu"
