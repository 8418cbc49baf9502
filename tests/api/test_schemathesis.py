"""the server's own OpenAPI document -> requests of every kind, alone and one after the other -> answers that are as it says"""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis

from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(4 * PATIENCE)

SETTINGS = hypothesis.settings(
    max_examples=12,
    deadline=None,
    derandomize=True,  # the same requests every time: a failure can be looked into
    suppress_health_check=(hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much, hypothesis.HealthCheck.data_too_large),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
# All of its checks but one. That a request which fits the document is accepted cannot hold: sizes lie on a grid, frames have limits
# together, files are real pictures, fields exclude each other. What JSON Schema cannot say, the answer says by name (test_http.py).
CONFIG = {"checks": {"positive_data_acceptance": {"enabled": False}}}


@pytest.fixture(scope="module")
def document(graph: Graph) -> Iterator[Any]:
    """What the running server says of itself."""
    with graph.client() as client:
        yield schemathesis.openapi.from_url(f"{graph.url}/openapi.json", config=schemathesis.Config.from_dict(CONFIG))
        for video in client.get("/v1/videos", params={"limit": 100}).json()["data"]:
            client.delete(f"/v1/videos/{video['id']}")


def test_every_answer_is_as_the_document_says(document: Any) -> None:
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) == 20
    for operation in operations:
        check(operation)


def check(operation: Any) -> None:
    """Asks an operation for this and that."""

    @SETTINGS
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(timeout=PATIENCE)

    ask()


def test_what_follows_from_an_answer_is_as_the_document_says(document: Any) -> None:
    """Create, then ask for, cancel, remix and delete what was created, in whatever order."""
    document.as_state_machine().run(settings=hypothesis.settings(SETTINGS, max_examples=6, stateful_step_count=8))
