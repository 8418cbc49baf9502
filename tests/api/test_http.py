"""every route over a real database: what it answers, and what it refuses"""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from fastapi.testclient import TestClient

from deployments.api.wire import Wire
from deployments.assigning import Assigner
from deployments.auth import Caller
from deployments.jobs.records import Claim
from deployments.settings import ApiArgs
from tests.api.conftest import WIRE, Desk, MakeDesk
from tests.bodies import image_url, picture

SMALL = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2, "seed": 3}
NOBODY = "video_" + "0" * 32


def made(desk: Desk, **fields: Any) -> dict[str, Any]:
    answer = desk.client().post("/v1/videos", json={**SMALL, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_video_waits_until_a_stage_has_begun_and_its_state_is_always_true(desk: Desk) -> None:
    client, video = desk.client(), made(desk)
    assert (video["status"], video["queue_position"], video["progress"], desk.woken) == ("queued", 1, 0, 1)
    job = desk.storage.jobs.claim("tester", 60, ["miniature"])
    assert job is not None and client.get(f"/v1/videos/{video['id']}").json()["status"] == "queued"
    desk.storage.jobs.release(Claim.of(job))
    job = desk.claim()
    now = client.get(f"/v1/videos/{video['id']}").json()
    assert (now["status"], now["current"], now["queue_position"]) == (
        "in_progress",
        {"step": "draft", "stage": "denoiser", "done": 1, "total": 2},
        None,
    )
    desk.finish(job)
    done = client.get(f"/v1/videos/{video['id']}").json()
    assert (done["status"], done["progress"], done["media_type"], done["current"]) == ("completed", 100, "video/mp4", None)


def test_a_range_of_the_content_is_answered_as_such(desk: Desk) -> None:
    client, video = desk.client(), made(desk)
    path = f"/v1/videos/{video['id']}/content"
    early = client.get(path)
    assert (early.status_code, early.headers["x-should-retry"]) == (409, "false")
    desk.finish(desk.claim(), content=bytes(range(100)))
    whole = client.get(path)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, bytes(range(100)), "bytes")
    for asked, start, end in (("0-9", 0, 10), ("90-", 90, 100), ("-5", 95, 100), ("50-1000", 50, 100), ("0-0", 0, 1)):
        part = client.get(path, headers={"range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, bytes(range(start, end))), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/100"
    for asked in ("100-", "200-300", "-0"):
        refused = client.get(path, headers={"range": f"bytes={asked}"})
        assert refused.status_code == 416 and refused.json()["error"]["code"] == "range_not_satisfiable", asked
        assert refused.headers["content-range"] == "bytes */100", asked
    for asked in ("bytes=9-3", "bytes=1-2,4-5", "pages=1-2", "bytes=x-y", "bytes=-"):
        assert client.get(path, headers={"range": asked}).status_code == 200, asked
    tag = whole.headers["etag"]
    for known in (tag, f"W/{tag}", f'"another", W/{tag}', f'"an,other",{tag} , "third"', "*", " * "):
        unchanged = client.get(path, headers={"if-none-match": known})
        assert (unchanged.status_code, unchanged.headers["etag"], unchanged.content) == (304, tag, b""), known
    for other in ('"another"', 'W/"another", "third"', tag.strip('"'), '"*"', ""):
        assert client.get(path, headers={"if-none-match": other}).status_code == 200, other
    assert client.get(path, headers={"range": "bytes=0-9", "if-range": tag}).status_code == 206
    assert client.get(path, headers={"range": "bytes=0-9", "if-range": '"another"'}).status_code == 200
    assert client.get(path, params={"variant": "thumbnail"}).content == b"thumbnail"
    assert client.get(path, params={"variant": "poster"}).json()["error"]["param"] == "variant"


def test_moving_up_in_the_queue_is_an_event(desk: Desk) -> None:
    first, second = made(desk), made(desk, seed=4)

    async def watch() -> list[Any]:
        seen: list[Any] = []
        caller = Caller("local", frozenset({"read", "write"}))
        async with aclosing(desk.service.watch(second["id"], caller=caller)) as events:
            async for event in events:
                seen.append(event.data["queue_position"])
                if len(seen) == 1:
                    await desk.service.cancel(first["id"], caller=caller)
                if seen[-1] == 1:
                    return seen
        return seen

    assert asyncio.run(asyncio.wait_for(watch(), 20)) == [2, 1]


def test_a_retried_remix_is_answered_though_its_source_is_gone(desk: Desk) -> None:
    client, source = desk.client(), made(desk)
    desk.finish(desk.claim())

    def remix() -> Any:
        return client.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "a blue ball"}, headers={"idempotency-key": "r"})

    first = remix()
    assert client.delete(f"/v1/videos/{source['id']}").status_code == 200
    again = remix()
    assert (again.status_code, again.json()["id"], again.headers["idempotent-replayed"]) == (200, first.json()["id"], "true")


def test_what_was_made_by_a_family_that_is_gone_is_told_as_such(desk: Desk) -> None:
    client, source = desk.client(), made(desk)
    job = desk.claim()
    desk.finish(job)
    desk.service._sources._wire = Wire({})
    for path, body in (
        (f"/v1/videos/{source['id']}/remix", {"prompt": "a blue ball"}),
        ("/v1/videos/extensions", {"prompt": "a blue ball", "seconds": 1, "video": {"id": source["id"]}}),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "video"), answer.text


def test_the_events_end_with_the_final_status(desk: Desk) -> None:
    video = made(desk)
    desk.finish(desk.claim())
    answer = desk.client().get(f"/v1/videos/{video['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    name, data = answer.text.strip().split("\n")
    assert name == "event: video" and json.loads(data.removeprefix("data: "))["status"] == "completed"
    assert desk.client().get(f"/v1/videos/{NOBODY}/events").status_code == 404


def test_the_same_key_and_body_give_one_video_in_whatever_order_it_is_written(desk: Desk) -> None:
    client, headers = desk.client(), {"idempotency-key": "one"}
    first = client.post("/v1/videos", json=SMALL, headers=headers)
    again = client.post("/v1/videos", json=dict(reversed(SMALL.items())), headers=headers)
    assert first.json()["id"] == again.json()["id"] and again.headers["idempotent-replayed"] == "true"
    other = client.post("/v1/videos", json={**SMALL, "seed": 4}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert len(client.get("/v1/videos").json()["data"]) == 1


def test_a_key_is_no_other_tenant_s(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    ids = {desk.client(desk.key(t)).post("/v1/videos", json=SMALL, headers={"idempotency-key": "k"}).json()["id"] for t in ("a", "b")}
    assert len(ids) == 2


def test_nobody_gets_in_without_a_key_that_holds(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    good = desk.key("a")
    _, revoked = desk.storage.keys.create("a", "gone", ("read",), None)
    desk.storage.keys.revoke(revoked.id)
    routes = [
        ("POST", "/v1/videos"),
        *(("GET", path) for path in ("/v1/videos", "/v1/models", f"/v1/videos/{NOBODY}/content", "/v1/graph")),
    ]
    for method, path in routes:
        for headers in ({}, {"authorization": "Bearer ap_wrong"}, {"authorization": good}, {"authorization": f"Basic {good}"}):
            answer = desk.client().request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), (path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert desk.client(good).get("/v1/models").status_code == 200
    assert desk.client().get("/healthz").status_code == desk.client().get("/readyz").status_code == 200


def test_without_keys_strangers_machines_get_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk()
    for host, status in (("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.7", 401), ("testclient", 401)):
        client = TestClient(desk.app, client=(host, 5000), base_url="http://127.0.0.1")
        assert client.get("/v1/videos").status_code == status, host
        assert client.get("/healthz").status_code == 200


def test_without_keys_pages_of_other_sites_get_nothing(desk: Desk) -> None:
    client = desk.client()
    for headers, status in (
        ({"host": "evil.example"}, 401),
        ({"origin": "https://evil.example"}, 401),
        ({"origin": "null"}, 401),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
    ):
        assert client.get("/v1/videos", headers=headers).status_code == status, headers


def test_a_key_to_read_does_not_write(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    reader = desk.client(desk.key("a", "read"))
    assert reader.get("/v1/videos").status_code == 200
    refused = reader.post("/v1/videos", json=SMALL)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


def test_a_tenant_can_neither_see_nor_touch_nor_guess_another_s_video(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    alice, bob = desk.client(desk.key("alice")), desk.client(desk.key("bob"))
    video = alice.post("/v1/videos", json=SMALL).json()["id"]
    desk.finish(desk.claim())
    attempts = {
        "see": bob.get(f"/v1/videos/{video}"),
        "download": bob.get(f"/v1/videos/{video}/content"),
        "watch": bob.get(f"/v1/videos/{video}/events"),
        "cancel": bob.post(f"/v1/videos/{video}/cancel"),
        "delete": bob.delete(f"/v1/videos/{video}"),
        "remix": bob.post(f"/v1/videos/{video}/remix", json={"prompt": "mine"}),
        "edit": bob.post("/v1/videos/edits", json={"prompt": "mine", "video": {"id": video}}),
        "extend": bob.post("/v1/videos/extensions", json={"prompt": "mine", "seconds": 1, "video": {"id": video}}),
        "page from": bob.get("/v1/videos", params={"after": video}),
    }
    for what, answer in attempts.items():
        unknown = answer.text.replace(video, NOBODY)
        assert answer.status_code == 404, what
        # What is somebody else's is told in the words for what was never there.
        ghost = bob.get(f"/v1/videos/{NOBODY}").json()["error"]
        assert what == "page from" or json.loads(unknown)["error"]["message"] == ghost["message"], what
    assert bob.get("/v1/videos").json()["data"] == [] and alice.get(f"/v1/videos/{video}").json()["status"] == "completed"


def test_the_result_of_one_tenant_answers_no_other_s_request(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    for tenant in ("alice", "bob"):
        desk.client(desk.key(tenant)).post("/v1/videos", json=SMALL)
    assigner = Assigner(ApiArgs.model_validate({"families": [{"name": "miniature"}]}), WIRE.families, desk.storage)
    one, other = (assigner.assign(desk.claim(), "f") for _ in range(2))
    assert one.identities == other.identities and set(one.scopes.values()).isdisjoint(other.scopes.values())


def test_too_many_requests_are_told_when_to_come_again(make_desk: MakeDesk) -> None:
    desk = make_desk(rate="3/minute")
    answers = [desk.client().get("/v1/videos") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60 and answers[-1].json()["error"]["code"] == "rate_limited"


def test_a_full_queue_says_so_and_keeps_what_it_took(make_desk: MakeDesk) -> None:
    desk = make_desk(queue={"max_queued": 3})
    answers = [desk.client().post("/v1/videos", json=SMALL) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].json()["error"]["code"] == "queue_full" and 1 <= int(answers[3].headers["retry-after"]) <= 120
    desk.claim()
    assert desk.client().post("/v1/videos", json=SMALL).status_code == 200


def test_a_quota_that_is_used_up_is_not_asked_again_by_itself(make_desk: MakeDesk) -> None:
    desk = make_desk(queue={"max_cost_per_day": 1e-9})
    refused = desk.client().post("/v1/videos", json=SMALL)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("120", "false")


def test_no_page_but_the_playground_is_served_where_it_keeps_a_key(desk: Desk) -> None:
    """FastAPI's own load a script of another server."""
    client = desk.client()
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/docs/oauth2-redirect")] == [404, 404, 404]
    pages = [path for path in ("/", "/openapi.json") if client.get(path).headers["content-type"].startswith("text/html")]
    assert pages == ["/"] and "content-security-policy" in client.get("/").headers


@pytest.mark.parametrize("url", ["https://192.0.2.1/a.png", "HTTPS://192.0.2.1/a.png", "Http://192.0.2.1/a.png"])
def test_an_address_is_known_as_one_however_its_scheme_is_written(url: str, desk: Desk) -> None:
    refused = desk.client().post("/v1/videos", json={**SMALL, "input_reference": {"image_url": url}}).json()["error"]
    assert refused["param"] == "input_reference.image_url" and "outgoing.enabled: true" in refused["message"]


def test_a_cancelled_video_is_told_to_the_dispatcher_and_stays_cancelled(desk: Desk) -> None:
    client, video = desk.client(), made(desk)
    job = desk.claim()
    answer = client.post(f"/v1/videos/{video['id']}/cancel")
    assert (answer.status_code, answer.json()["status"], desk.cancelled) == (200, "cancelled", [job.id])
    assert client.post(f"/v1/videos/{video['id']}/cancel").status_code == 200
    other = made(desk)
    desk.finish(desk.claim())
    refused = client.post(f"/v1/videos/{other['id']}/cancel")
    assert (refused.status_code, refused.json()["error"]["code"], refused.headers["x-should-retry"]) == (409, "conflict", "false")


def test_what_is_deleted_leaves_no_file(desk: Desk) -> None:
    client, video = desk.client(), made(desk, input_reference=image_url(picture()))
    assert len(list(desk.storage.artifacts.keys_under(f"videos/{video['id']}"))) == 1
    desk.finish(desk.claim())
    assert client.delete(f"/v1/videos/{video['id']}").json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert not list(desk.storage.artifacts.keys_under(f"videos/{video['id']}"))
    assert client.delete(f"/v1/videos/{video['id']}").status_code == 404


def test_a_replay_leaves_no_second_upload(desk: Desk) -> None:
    body = {**SMALL, "input_reference": image_url(picture())}
    for _ in range(2):
        assert desk.client().post("/v1/videos", json=body, headers={"idempotency-key": "k"}).status_code == 200
    assert len(list(desk.storage.artifacts.keys_under("videos"))) == 1


BAD: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a remix without a prompt": ("POST", "/v1/videos/{id}/remix", {}, "prompt"),
    "a remix with a size": ("POST", "/v1/videos/{id}/remix", {"prompt": "x", "size": "64x64"}, "size"),
    "an edit of nothing": ("POST", "/v1/videos/edits", {"prompt": "x"}, "video"),
    "an edit of a number": ("POST", "/v1/videos/edits", {"prompt": "x", "video": 3}, "video"),
    "an extension without seconds": ("POST", "/v1/videos/extensions", {"prompt": "x", "video": {"id": "{id}"}}, "seconds"),
    "an extension of 0 s": ("POST", "/v1/videos/extensions", {"prompt": "x", "seconds": 0, "video": {"id": "{id}"}}, "seconds"),
    "a priority beyond": ("POST", "/v1/videos", {**SMALL, "priority": 101}, "priority"),
    "a webhook where none may be": ("POST", "/v1/videos", {**SMALL, "webhook_url": "https://example.com/hook"}, "webhook_url"),
    "an address where none may be": (
        "POST",
        "/v1/videos",
        {**SMALL, "input_reference": {"image_url": "https://example.com/a.png"}},
        "input_reference.image_url",
    ),
    "an idempotency key of nothing": ("POST", "/v1/videos", SMALL, "idempotency-key"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name: str, desk: Desk) -> None:
    method, path, body, param = BAD[name]
    video = made(desk)
    desk.finish(desk.claim())
    filled = json.loads(json.dumps(body).replace("{id}", video["id"]))
    headers = {"idempotency-key": ""} if param == "idempotency-key" else {}
    answer = desk.client().request(method, path.replace("{id}", video["id"]), json=filled, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_limits_of_a_page_are_told(desk: Desk) -> None:
    for query, param in (({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"limit": "x"}, "limit"), ({"order": "up"}, "order")):
        answer = desk.client().get("/v1/videos", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), query


def test_the_document_names_every_route_and_every_answer_is_described(desk: Desk) -> None:
    document = desk.client().get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path not in ("/healthz", "/readyz"):
                    assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
            assert operation["description"], path
    text = json.dumps(document)
    references = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert {reference.rpartition("/")[2] for reference in references} <= document["components"]["schemas"].keys()
