"""one job on the graph -> its trace, as a collector got it -> docs/trace.svg, a waterfall

python -m tests.telemetry.picture
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from html import escape
from pathlib import Path

from deployments.telemetry import names
from tests.collector import Received, collecting, sent_to
from tests.graph import graph_config, running_graph
from tests.telemetry.test_traces import job_is_told

PICTURE = Path(__file__).parents[2] / "docs/trace.svg"
WIDTH, LEFT, ROW, TOP = 1180, 330, 19, 46
COLOURS = {
    "": "#5b6577",  # the ingress and the dispatcher
    "text_encoder": "#b5651d",
    "denoiser": "#2563a8",
    "upsampler": "#6b4fa0",
    "refiner": "#1f7a5c",
    "vae_decoder": "#a83246",
}
BODY = {"prompt": "a red ball rolls to the left", "num_frames": 33, "size": "128x128", "num_inference_steps": 24, "seed": 7}


def traced() -> list[Received]:
    """The spans of a job in two stages, on a graph that has made one before."""
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        graph = stack.enter_context(running_graph(graph_config(), data=folder, environment=sent_to(collector)))
        with graph.client() as client:
            client.post("/v1/videos/sync", json={**BODY, "seed": 6, "prompt": "another"}).raise_for_status()
            trace_id = secrets.token_hex(16)
            headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
            client.post("/v1/videos/sync", json=BODY, headers=headers).raise_for_status()
        return collector.wait(trace_id, job_is_told)


def rows(spans: list[Received], parent: str, depth: int = 0) -> Iterator[tuple[int, Received]]:
    """Each under its parent, in the order in which they began."""
    for span in sorted((span for span in spans if span.parent_id == parent), key=lambda span: span.start):
        yield depth, span
        yield from rows(spans, span.span_id, depth + 1)


def draw(spans: list[Received]) -> str:
    """A waterfall."""
    ids = {span.span_id for span in spans}
    (root,) = {span.parent_id for span in spans if span.parent_id not in ids}
    lines = list(rows(spans, root))
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    scale, height = (WIDTH - LEFT - 90) / (end - start), TOP + ROW * len(lines) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12">',
        f'<title>One trace of one job: {len(lines)} spans</title><rect width="100%" height="100%" fill="#ffffff"/>',
        *_axis(end - start, scale, height),
    ]
    for number, (depth, span) in enumerate(lines):
        parts += _bar(depth, span, y=TOP + ROW * number, x=LEFT + (span.start - start) * scale, width=(span.end - span.start) * scale)
    return "\n".join([*parts, "</svg>", ""])


def _axis(seconds: float, scale: float, height: int) -> Iterator[str]:
    tick = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0) if seconds / step <= 10)
    for number in range(int(seconds / tick) + 1):
        x = LEFT + number * tick * scale
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="30" y2="{height}" stroke="#e3e6eb"/>'
        yield f'<text x="{x:.1f}" y="22" text-anchor="middle" fill="#5b6577">{number * tick:g} s</text>'


def _bar(depth: int, span: Received, *, y: float, x: float, width: float) -> Iterator[str]:
    stage = span.attributes.get(names.STAGE, "")
    label = f"{span.name} ({stage})" if stage and span.name.startswith("step ") else span.name
    weight = ' font-weight="600"' if depth < 2 or span.name.startswith("step ") else ""
    seconds = span.end - span.start
    yield f'<text x="{8 + 14 * depth}" y="{y + 13}"{weight} fill="#1d2330">{escape(label)}</text>'
    yield f'<rect x="{x:.1f}" y="{y + 3}" width="{max(width, 1.5):.1f}" height="{ROW - 6}" rx="2" fill="{COLOURS.get(stage, "#888")}"/>'
    yield f'<text x="{x + max(width, 1.5) + 5:.1f}" y="{y + 13}" fill="#5b6577">{seconds * 1000:.0f} ms</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(traced()), encoding="utf-8")
