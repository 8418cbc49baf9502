"""with which weights each stage of a family computes: told by replicas through Ray's key-value store, pinned in a job's row

All stages compute with what the family's args name, but for those that were given weights of their own (a stage's `user_config`).
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from aiprod_components.errors import WeightsChangedError
from deployments import head_store

BELIEVED_SECONDS = 10.0  # for which a refusal counts more than what was told before it


@dataclass(frozen=True)
class Weights:
    """Fingerprints: the family's, and of the stages that have their own."""

    family: str
    own: Mapping[str, str] = field(default_factory=dict[str, str])

    def of(self, stage: str) -> str:
        return self.own.get(stage, self.family)

    def to_text(self) -> str:
        """As a job's row has it."""
        return json.dumps(asdict(self), sort_keys=True) if self.own else self.family

    @classmethod
    def from_text(cls, text: str) -> "Weights":
        return cls(**json.loads(text)) if text.startswith("{") else cls(text)


class Told(NamedTuple):
    """What the replica of a stage said that was the last to be given weights: fingerprints, its family's and its own.

    `asked` are the weights that it was given, `fault` why it does not serve them, `at` when that was by its own clock.
    """

    family: str
    fingerprint: str
    asked: str | None
    fault: str | None
    at: float


def tell_weights(family: str, stage: str, told: Told) -> None:
    """Asks Ray's head, so not in an event loop. Outside of a cluster nobody listens."""
    if not head_store.is_there():
        return
    known = fetch_weights(family, [stage]).get(stage)
    if told.fault is None and known is not None and known.asked == told.asked:
        told = told._replace(fault=known.fault)  # another replica's, which was given the same
    head_store.put(_key(family, stage), json.dumps(told._asdict()))


def fetch_weights(family: str, stages: Iterable[str]) -> dict[str, Told]:
    """By stage, those of which something was told. Asks Ray's head."""
    if not head_store.is_there():
        return {}
    texts = {stage: head_store.get(_key(family, stage)) for stage in stages}
    return {stage: Told(**json.loads(text)) for stage, text in texts.items() if text}


def _key(family: str, stage: str) -> str:
    return f"weights/{family}/{stage}"


class Hearsay:
    """What a dispatcher knows of a family's weights: what replicas told, and what a stage has that refused a call since."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}
        self._refused: dict[str, tuple[float, str]] = {}

    def hear(self, told: Mapping[str, Told]) -> None:
        for stage, said in told.items():
            if said != self._told.get(stage):
                self._refused.pop(stage, None)
        self._told = dict(told)

    def note(self, refusal: WeightsChangedError) -> None:
        """While replicas of a stage differ, calls are planned for those that refused last: the more there are, the likelier."""
        if refusal.stage:
            self._refused[refusal.stage] = time.monotonic(), refusal.fingerprint

    def weights(self, family: str) -> Weights:
        """`family` is its fingerprint; what was told by replicas of another is of no account."""
        now = time.monotonic()
        heard = {stage: said.fingerprint for stage, said in self._told.items() if said.family == family}
        heard |= {stage: fingerprint for stage, (at, fingerprint) in self._refused.items() if now - at <= BELIEVED_SECONDS}
        return Weights(family, {stage: fingerprint for stage, fingerprint in heard.items() if fingerprint != family})
