"""traceparent headers -> places in a trace; names -> the conventions they are from"""

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from deployments.telemetry import names
from deployments.telemetry.traces import TraceContext, answering, attempt_context, current, job_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, False)),
        (f" 00-{TRACE}-{SPAN}-03 ", TraceContext(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-of-a-later-version", TraceContext(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-of-this-version", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"cc-{TRACE}-{SPAN}-01-{'x' * 600}", None),
        ("", None),
        (None, None),
    ],
)
def test_a_header_is_a_place_or_nothing(header: str | None, expected: TraceContext | None) -> None:
    assert TraceContext.parse(header) == expected


def test_a_place_is_written_as_it_was_read() -> None:
    assert str(TraceContext.parse(f"00-{TRACE}-{SPAN}-01")) == f"00-{TRACE}-{SPAN}-01"


def test_whoever_reads_a_row_finds_the_same_spans() -> None:
    row = f"00-{TRACE}-{SPAN}-01"
    assert attempt_context(row, "video_1", 2) == attempt_context(row, "video_1", 2)
    spans = [job_context(row, "video_1"), job_context(row, "video_2"), *(attempt_context(row, "video_1", n) for n in (1, 2))]
    assert len({span.span_id for span in spans if span}) == 4 and {span.trace_id for span in spans if span} == {TRACE}
    assert job_context(None, "video_1") is None


@pytest.mark.usefixtures("nowhere")
def test_without_a_collector_a_clients_trace_is_carried_on_and_nothing_more() -> None:
    with answering(f"00-{TRACE}-{SPAN}-01", "POST", {}):
        assert current() == TraceContext(TRACE, SPAN, True)
    with answering(None, "POST", {}):
        assert current().sampled is False and current().trace_id != TRACE


def test_names_for_generative_ai_are_those_of_the_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert ours and ours <= known
    assert names.GENERATE_CONTENT in {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
