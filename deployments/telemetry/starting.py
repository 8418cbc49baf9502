"""a process of the graph begins -> its log lines say whose they are, and its exporter is there before the first job is"""

from deployments.telemetry import logs
from deployments.telemetry.exporting import exporter


def start() -> None:
    """Once for each process, however often it is called."""
    logs.install()
    exporter()  # imports the SDK, where there is a collector: that takes a second, which no request should wait for
