"""classes of requests and their families -> a graph of tasks for each"""

from collections.abc import Mapping
from typing import Any

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.plan import Plan
from deployments.api.body import Body
from deployments.api.wire import Wire
from deployments.capacity.traffic import Arrival, Traffic
from deployments.work import Graph, graph_of


def plan_of(request: Mapping[str, Any], *, wire: Wire, number: int = 0) -> Plan:
    """Of one request of a class. Raises InvalidRequestError as the server would."""
    arrival = Arrival(0.0, "", request, None, number)
    return wire.read(Body(arrival.body, is_json=True)).plan


def graphs_of(traffic: Traffic, families: Mapping[str, Family]) -> tuple[Graph, ...]:
    """One for each class. Raises InvalidRequestError naming the class whose request would be refused."""
    wire = Wire(families)

    def graph(place: int) -> Graph:
        try:
            return graph_of(plan_of(traffic.classes[place].request, wire=wire))
        except InvalidRequestError as error:
            field = f"classes.{place}.request"
            raise InvalidRequestError(f"traffic: {field} would be refused: {error.message}", field=field) from error

    return tuple(graph(place) for place in range(len(traffic.classes)))
