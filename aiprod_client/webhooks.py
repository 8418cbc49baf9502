"""a webhook's body and headers -> what it says, if the server signed it: https://www.standardwebhooks.com"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from aiprod_client.errors import WebhookVerificationError

TOLERANCE_SECONDS = 300.0
PREFIX = "whsec_"


def verify_webhook(payload: bytes, headers: Mapping[str, str], secret: str) -> dict[str, Any]:
    """The body as data. Raises WebhookVerificationError unless it was signed with the secret within the last five minutes.

    `payload` is the body as it came: one that was read and written again has other bytes. `secret` is what
    `aiprod keys webhook-secret` prints.
    """
    said = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if name not in said]
    if missing:
        raise _refused(f"the webhook has no {missing[0]} header")
    _check_time(said["webhook-timestamp"])
    signed = b".".join([said["webhook-id"].encode(), said["webhook-timestamp"].encode(), payload])
    expected = base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256))
    signatures = (signature.partition(",") for signature in said["webhook-signature"].split(" "))
    if not any(hmac.compare_digest(expected, given.encode()) for version, _, given in signatures if version == "v1"):
        raise _refused("the webhook's signature is not of this body and this secret")
    return _read(payload)


def _check_time(timestamp: str) -> None:
    try:
        age = time.time() - int(timestamp)
    except ValueError as error:
        raise _refused(f"webhook-timestamp must be seconds since 1970, got {timestamp!r}") from error
    if abs(age) > TOLERANCE_SECONDS:
        raise _refused(f"the webhook is {abs(age):.0f} s {'old' if age > 0 else 'ahead'}; {TOLERANCE_SECONDS:.0f} s are allowed")


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise _refused(f"the secret must be {PREFIX} and base64, as `aiprod keys webhook-secret` prints it") from error


def _read(payload: bytes) -> dict[str, Any]:
    try:
        record = json.loads(payload)
    except ValueError as error:
        raise _refused(f"the webhook's body is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise _refused(f"the webhook's body must be a JSON object, got {type(record).__name__}")
    return record


def _refused(message: str) -> WebhookVerificationError:
    return WebhookVerificationError(message, code="invalid_webhook")
