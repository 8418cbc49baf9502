"""a model, arrivals -> what becomes of them, by the faster of two ways that give the same answer"""

from deployments.capacity.events import run_events
from deployments.capacity.lines import run_lines
from deployments.capacity.model import Model, Outcome
from deployments.capacity.traffic import Columns


def simulate(model: Model, columns: Columns) -> Outcome:
    return run_lines(model, columns) or run_events(model, columns)
