"""signed webhooks -> what they say; anything else -> an error"""

import base64
import hashlib
import hmac
import json
import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from aiprod_client import WebhookVerificationError, verify_webhook, webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PAYLOAD = b'{"type": "video.completed",  "data": {"id": "video_1", "prompt": "\xc3\xa9t\xc3\xa9"}}'
# The example of the Standard Webhooks libraries' own tests.
EXAMPLE_PAYLOAD = b'{"test": 2432232314}'
EXAMPLE = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def signature(payload: bytes, *, secret: str = SECRET, id: str = "msg_1", timestamp: int) -> str:
    """As the standard says it: base64 of the HMAC-SHA256 of id.timestamp.payload, by the bytes that the secret encodes."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.new(key, f"{id}.{timestamp}.".encode() + payload, hashlib.sha256).digest()).decode()


def headers(payload: bytes = PAYLOAD, *, age: int = 0, changed: dict[str, str] | None = None) -> dict[str, str]:
    timestamp = int(time.time()) - age
    signed = signature(payload, timestamp=timestamp)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "webhook-signature": signed, **(changed or {})}


def test_a_signed_webhook_is_read() -> None:
    assert verify_webhook(PAYLOAD, headers(), SECRET) == json.loads(PAYLOAD)
    assert verify_webhook(PAYLOAD, headers(), SECRET.removeprefix("whsec_")) == json.loads(PAYLOAD)


def test_the_standard_s_own_example_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks.time, "time", lambda: 1614265330.0)
    assert verify_webhook(EXAMPLE_PAYLOAD, EXAMPLE, SECRET) == {"test": 2432232314}


def test_headers_have_no_case() -> None:
    titled = {name.title(): value for name, value in headers().items()}
    assert verify_webhook(PAYLOAD, titled, SECRET)["type"] == "video.completed"


def test_one_of_many_signatures_is_enough() -> None:
    """While a secret is changed, both sign."""
    good = headers()["webhook-signature"]
    listed = f"v1a,AAAA v1,bm9uZQ== v1,schön {good}"
    assert verify_webhook(PAYLOAD, headers(changed={"webhook-signature": listed}), SECRET)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"webhook-signature": "v1,bm9uZQ=="}, "is not of this body"),
        ({"webhook-signature": ""}, "is not of this body"),
        ({"webhook-signature": "v1"}, "is not of this body"),
        ({"webhook-id": "msg_2"}, "is not of this body"),
        ({"webhook-timestamp": "yesterday"}, "webhook-timestamp must be seconds since 1970, got 'yesterday'"),
    ],
)
def test_what_is_not_signed_so_is_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(WebhookVerificationError, match=message):
        verify_webhook(PAYLOAD, headers(changed=changed), SECRET)


def test_a_signature_is_of_its_time() -> None:
    another = {"webhook-timestamp": str(int(time.time()) + 60)}
    with pytest.raises(WebhookVerificationError, match="is not of this body"):
        verify_webhook(PAYLOAD, headers(changed=another), SECRET)


def test_a_signature_of_another_version_does_not_count() -> None:
    good = headers()["webhook-signature"]
    with pytest.raises(WebhookVerificationError, match="is not of this body"):
        verify_webhook(PAYLOAD, headers(changed={"webhook-signature": good.replace("v1,", "v2,")}), SECRET)


def test_another_body_or_secret_is_refused() -> None:
    for payload, secret in ((PAYLOAD + b" ", SECRET), (PAYLOAD, "whsec_AAAA")):
        with pytest.raises(WebhookVerificationError, match="is not of this body and this secret"):
            verify_webhook(payload, headers(), secret)


@pytest.mark.parametrize("age", [310, -310, 100_000])
def test_a_webhook_is_of_the_last_five_minutes(age: int) -> None:
    with pytest.raises(WebhookVerificationError, match="300 s are allowed"):
        verify_webhook(PAYLOAD, headers(age=age), SECRET)


@pytest.mark.parametrize("age", [290, -290])
def test_clocks_may_differ_a_little(age: int) -> None:
    assert verify_webhook(PAYLOAD, headers(age=age), SECRET)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_named(name: str) -> None:
    sent = headers()
    del sent[name]
    with pytest.raises(WebhookVerificationError, match=f"the webhook has no {name} header"):
        verify_webhook(PAYLOAD, sent, SECRET)


@pytest.mark.parametrize("payload", [b"not json", b"[]", b"\xff"])
def test_a_signed_body_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(WebhookVerificationError, match="the webhook's body"):
        verify_webhook(payload, headers(payload), SECRET)


def test_a_secret_that_is_none_is_said() -> None:
    with pytest.raises(WebhookVerificationError, match="the secret must be whsec_ and base64"):
        verify_webhook(PAYLOAD, headers(), "whsec_???")


@pytest.mark.parametrize(
    "changed", [{}, {"webhook-id": "msg_2"}, {"webhook-signature": "v1,bm9uZQ=="}, {"webhook-timestamp": "1614265330"}]
)
def test_openai_s_client_is_of_the_same_opinion(changed: dict[str, str]) -> None:
    sent, client = headers(changed=changed), OpenAI(api_key="none", base_url="http://127.0.0.1:9", webhook_secret=SECRET)
    if changed:
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.verify_signature(PAYLOAD, sent)
        with pytest.raises(WebhookVerificationError):
            verify_webhook(PAYLOAD, sent, SECRET)
    else:
        client.webhooks.verify_signature(PAYLOAD, sent)
        verify_webhook(PAYLOAD, sent, SECRET)
