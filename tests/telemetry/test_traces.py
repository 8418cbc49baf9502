"""one job on the whole graph -> every process's spans, at a real collector: one trace, and who is whose child"""

import secrets
import time
from collections.abc import Iterator

import httpx
import pytest

from deployments.api.proto.aiprod.v1 import video_pb2 as pb
from deployments.telemetry import names
from tests.collector import Collector, Received
from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(PATIENCE + 120)

STEPS = ["prompt", "draft", "doubled", "refined", "video"]
STAGES = ["text_encoder", "denoiser", "upsampler", "refiner", "vae_decoder"]


@pytest.fixture(scope="module")
def collector(graph: Graph) -> Collector:
    assert graph.collector is not None
    return graph.collector


@pytest.fixture(scope="module")
def http(graph: Graph) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def wanted(**fields: object) -> dict[str, object]:
    seed = secrets.randbelow(2**31)  # of no other test: nothing of it is found done
    return {"prompt": f"a red ball {seed}", "num_frames": 5, "size": "64x64", "num_inference_steps": 20, "seed": seed, **fields}


def job_is_told(spans: list[Received]) -> bool:
    """Each process sends by itself, so that the last word may come first: the steps', the dispatcher's, and the answer to the request."""
    there = {span.name for span in spans}
    wanted = {f"step {step}" for step in STEPS} | {"attempt", "generate_content miniature"}
    return wanted <= there and any("VideoService/" in name or name.startswith("POST ") for name in there)


def one(spans: list[Received], name: str) -> Received:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, f"{len(found)} of {name!r} among {sorted(span.name for span in spans)}"
    return found[0]


def below(spans: list[Received], parent: Received) -> list[Received]:
    return sorted((span for span in spans if span.parent_id == parent.span_id), key=lambda span: span.start)


def test_one_trace_has_all_of_a_job_in_two_stages_and_who_is_whose_child(http: httpx.Client, collector: Collector) -> None:
    trace_id, client_span = secrets.token_hex(16), secrets.token_hex(8)
    answer = http.post("/v1/videos/sync", json=wanted(), headers={"traceparent": f"00-{trace_id}-{client_span}-01"})
    assert answer.status_code == 200, answer.text
    spans = collector.wait(trace_id, job_is_told)
    request, job, attempt = one(spans, "POST /v1/videos/sync"), one(spans, "generate_content miniature"), one(spans, "attempt")
    assert (request.parent_id, job.parent_id, attempt.parent_id) == (client_span, request.span_id, job.span_id)
    assert [span.name for span in below(spans, job)] == ["queue", "attempt"]
    assert [span.name for span in below(spans, attempt)] == ["assign", *(f"step {step}" for step in STEPS)]
    steps = [one(spans, f"step {step}") for step in STEPS]
    assert [step.attributes[names.STAGE] for step in steps] == STAGES
    assert len({span.process for span in (request, attempt, *steps)}) == 7, "each process tells what it did itself"
    for step in steps:
        phases = [names.QUEUED, names.FETCH, names.RUN] + [names.PUBLISH] * (step.name == "step video")
        assert [span.name for span in below(spans, step)] == phases
        assert step.attributes[names.TOKENS] > 0 and step.attributes[names.NETWORK_CALLS] > 0
    assert all(not span.failed for span in spans) and len(spans) < 60
    assert all(job.start <= span.start and span.end <= job.end + 0.1 for span in steps)


def test_a_stepped_stage_has_a_few_spans_for_its_steps_however_many_they_are(http: httpx.Client, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    body = wanted(num_inference_steps=50)
    assert http.post("/v1/videos/sync", json=body, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"}).status_code == 200
    spans = collector.wait(trace_id, job_is_told)
    (run,) = [span for span in below(spans, one(spans, "step draft")) if span.name == names.RUN]
    batches = below(spans, run)
    assert len(batches) == 8
    places = [(span.attributes[names.FIRST_STEP], span.attributes[names.LAST_STEP], span.attributes[names.STEPS]) for span in batches]
    assert [first for first, _, _ in places] == [1, *(last + 1 for _, last, _ in places[:-1])] and places[-1][1:] == (50, 50)
    assert batches[0].start >= run.start and batches[-1].end <= run.end


def test_what_a_job_says_of_itself_is_said_in_the_words_of_the_conventions(http: httpx.Client, collector: Collector) -> None:
    trace_id, body = secrets.token_hex(16), wanted()
    assert http.post("/v1/videos/sync", json=body, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"}).status_code == 200
    said = one(collector.wait(trace_id, job_is_told), "generate_content miniature").attributes
    assert {name: value for name, value in said.items() if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "aiprod",
        "gen_ai.request.model": "miniature",
        "gen_ai.request.seed": body["seed"],
        "gen_ai.output.type": "video",
        "gen_ai.response.id": said[names.JOB_ID],
        "gen_ai.response.finish_reasons": ["completed"],
    }
    assert not any("red ball" in str(span) for span in collector.spans), "a prompt is nobody's business"


def test_steps_that_were_found_done_have_no_spans_and_the_attempt_names_them(http: httpx.Client, collector: Collector) -> None:
    body = wanted()
    traces = [secrets.token_hex(16) for _ in range(2)]
    for trace_id, steps in zip(traces, (20, 21), strict=True):
        headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
        assert http.post("/v1/videos/sync", json={**body, "num_inference_steps": steps}, headers=headers).status_code == 200
    first, second = (collector.wait(trace, lambda spans: any(s.name == "attempt" for s in spans)) for trace in traces)
    assert one(first, "attempt").attributes[names.KEPT_STEPS] == []
    assert one(second, "attempt").attributes[names.KEPT_STEPS] == ["prompt"]
    assert not [span for span in second if span.name == "step prompt"]


def test_grpc_takes_on_a_clients_trace_too(graph: Graph, collector: Collector) -> None:
    import grpc

    from deployments.api.proto.aiprod.v1.video_pb2_grpc import VideoServiceStub

    trace_id, body = secrets.token_hex(16), wanted()
    with grpc.insecure_channel(f"127.0.0.1:{graph.grpc_port}") as channel:
        request = pb.CreateVideoRequest(prompt=str(body["prompt"]), num_frames=5, size="64x64", num_inference_steps=2)
        metadata = (("traceparent", f"00-{trace_id}-{'1' * 16}-01"), ("application", "api"))
        VideoServiceStub(channel).CreateVideo(request, metadata=metadata)
    spans = collector.wait(trace_id, job_is_told)
    (request_span,) = [span for span in spans if span.name == "aiprod.v1.VideoService/CreateVideo"]
    assert one(spans, "generate_content miniature").parent_id == request_span.span_id


def test_a_client_that_samples_nothing_leaves_no_span(http: httpx.Client, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    assert http.post("/v1/videos/sync", json=wanted(), headers={"traceparent": f"00-{trace_id}-{'1' * 16}-00"}).status_code == 200
    time.sleep(1.0)  # five times what a process waits before it sends
    assert collector.of(trace_id) == []


def test_a_cancelled_job_is_told_to_its_end(http: httpx.Client, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    body = wanted(num_inference_steps=100, size="128x128", num_frames=33)
    video = http.post("/v1/videos", json=body, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"}).json()
    deadline = time.monotonic() + 30
    while http.get(f"/v1/videos/{video['id']}").json()["status"] == "queued" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert http.post(f"/v1/videos/{video['id']}/cancel").status_code == 200

    def told(spans: list[Received]) -> bool:
        return {"attempt", "generate_content miniature"} <= {span.name for span in spans}

    spans = collector.wait(trace_id, told)
    assert one(spans, "attempt").attributes[names.OUTCOME] == "cancelled"
    assert one(spans, "generate_content miniature").attributes[names.STATUS] == "cancelled"
