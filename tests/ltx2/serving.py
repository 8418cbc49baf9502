"""a config -> the graph in a cluster that another process holds; and configs deployed after it"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ray.serve.schema import ServeDeploySchema

from tests.graph import running_graph, serve_client
from tests.held import Held, held


class Serving(NamedTuple):
    """A running graph; `deploy` does what `serve deploy` does."""

    url: str
    deploy: Callable[[dict[str, Any]], None]


@contextmanager
def serving(config: dict[str, Any], *, data: Path) -> Iterator[Serving]:
    """Raises RuntimeError when it does not get ready."""
    with held(_running, config, data) as (url, ask):
        yield Serving(url, lambda following: ask("deploy", following))


@contextmanager
def _running(config: dict[str, Any], data: Path) -> Iterator[Held]:
    with running_graph(config, data=data) as graph:
        yield graph.url, {"deploy": _deploy}


def _deploy(config: dict[str, Any]) -> None:
    serve_client().deploy_apps(ServeDeploySchema.model_validate(config))
