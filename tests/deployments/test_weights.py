"""what replicas told of their weights, and what those said that refused a call -> the weights that jobs are planned for"""

import pytest

from aiprod_components.errors import WeightsChangedError
from deployments import weights as module
from deployments.weights import Hearsay, Told, Weights


def told(fingerprint: str, *, family: str = "family", at: float = 0.0) -> dict[str, Told]:
    return {"denoiser": Told(family, fingerprint, None, None, at)}


def refusal(fingerprint: str) -> WeightsChangedError:
    return WeightsChangedError("other weights", stage="denoiser", fingerprint=fingerprint)


@pytest.mark.parametrize("weights", [Weights("family"), Weights("family", {"denoiser": "new", "vae_decoder": "newer"})])
def test_a_row_has_the_weights_of_every_stage(weights: Weights) -> None:
    assert Weights.from_text(weights.to_text()) == weights
    assert (weights.of("refiner"), weights.of("denoiser")) == ("family", weights.own.get("denoiser", "family"))


def test_a_stage_has_the_weights_that_were_told_last_and_all_others_the_family_s() -> None:
    hearsay = Hearsay()
    assert hearsay.weights("family") == Weights("family")
    hearsay.hear(told("new"))
    assert hearsay.weights("family") == Weights("family", {"denoiser": "new"})
    assert hearsay.weights("of other code") == Weights("of other code")  # whose replicas have not told yet
    hearsay.hear(told("family", at=1.0))
    assert hearsay.weights("family") == Weights("family")


def test_a_refusal_counts_until_something_is_told_or_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    hearsay = Hearsay()
    hearsay.hear(told("new"))
    hearsay.note(refusal("old"))
    hearsay.hear(told("new"))
    assert hearsay.weights("family").of("denoiser") == "old"
    hearsay.hear(told("new", at=1.0))  # another replica has changed
    assert hearsay.weights("family").of("denoiser") == "new"
    hearsay.note(refusal("old"))
    monkeypatch.setattr(module, "BELIEVED_SECONDS", -1.0)
    assert hearsay.weights("family").of("denoiser") == "new"
