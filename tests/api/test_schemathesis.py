"""the server's own OpenAPI document -> requests of every kind, alone and one after the other -> answers that are as it says"""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(4 * PATIENCE)

SETTINGS = hypothesis.settings(
    max_examples=12,
    deadline=None,
    derandomize=True,  # the same requests every time: a failure can be looked into
    suppress_health_check=(hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much, hypothesis.HealthCheck.data_too_large),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
# That a request which fits the document is accepted cannot hold: sizes lie on a grid, frames have limits together, files are real
# pictures, ids exist. What JSON Schema cannot say, the answer says by name (tests/api/test_http.py).
UNSAYABLE = [positive_data_acceptance]


@pytest.fixture(scope="module")
def document(graph: Graph) -> Iterator[Any]:
    """What the running server says of itself."""
    with graph.client() as client:
        yield schemathesis.openapi.from_url(f"{graph.url}/openapi.json")
        for video in client.get("/v1/videos", params={"limit": 100}).json()["data"]:
            client.delete(f"/v1/videos/{video['id']}")


operations: Any = schemathesis.pytest.from_fixture("document")


@operations.parametrize()
@SETTINGS
def test_every_answer_is_as_the_document_says(case: Any) -> None:
    """All of schemathesis's checks, but for the one above."""
    case.call_and_validate(excluded_checks=UNSAYABLE, timeout=PATIENCE)


def test_what_follows_from_an_answer_is_as_the_document_says(document: Any) -> None:
    """Create, then ask for, cancel, remix and delete what was created, in whatever order."""
    machine = document.as_state_machine()
    original = machine.validate_response

    def validate(self: Any, response: Any, case: Any, **options: Any) -> None:
        original(self, response, case, excluded_checks=UNSAYABLE, **options)

    machine.validate_response = validate
    machine.run(settings=hypothesis.settings(SETTINGS, max_examples=6, stateful_step_count=8))
