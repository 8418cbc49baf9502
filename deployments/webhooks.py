"""events that are due -> signed (Standard Webhooks) -> posted through the guard -> delivered, or due again later"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from aiprod_components.errors import AiprodError
from deployments.jobs.outbox import Delivery, Outbox
from deployments.outgoing import Outgoing
from deployments.telemetry import names
from deployments.telemetry.traces import Span, TraceContext, is_recorded, record

log = logging.getLogger("ray.serve")

SECRET_PREFIX = "whsec_"
AT_ONCE = 128  # receivers that do not answer hold a place for as long as they may
TIMEOUT_SECONDS = 15.0
# Until it ends, nobody else takes what is being delivered: the time of a post, and then some for the database.
LEASE_SECONDS = 60.0
GIVE_UP_AFTER = 12  # tries, which is some five hours
GONE = 410  # what a receiver says that wants no more


def webhook_secret(pepper: bytes, tenant: str) -> str:
    """What a tenant verifies webhooks with; always the same for one server."""
    derived = hmac.digest(pepper, b"webhook\0" + tenant.encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(derived).decode()


def sign(payload: bytes, *, id: str, timestamp: int, secret: str) -> dict[str, str]:
    """The headers of Standard Webhooks: who receives them can tell that the payload is ours, and new (standardwebhooks.com)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    signature = hmac.digest(key, f"{id}.{timestamp}.".encode() + payload, hashlib.sha256)
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{base64.b64encode(signature).decode()}"}


class Deliverer:
    """Delivers what is due, several at once, so that a slow receiver keeps nobody else waiting."""

    def __init__(
        self, outbox: Outbox, outgoing: Outgoing, secret_of: Callable[[str], str], note: Callable[[str], None] = lambda result: None
    ) -> None:
        self._outbox, self._outgoing, self._secret_of, self._note = outbox, outgoing, secret_of, note
        self._under_way: set[asyncio.Task[None]] = set()

    async def deliver_due(self) -> int:
        """Begins to deliver what is due, as much as there is room for, and says how much that is; does not wait for the receivers.

        Never raises: what goes wrong is logged, and due again when its lease ends.
        """
        (due,) = await asyncio.gather(self._claim(AT_ONCE - len(self._under_way)), return_exceptions=True)
        if isinstance(due, BaseException):
            log.error("webhooks that are due cannot be read", exc_info=due)
            return 0
        for delivery in due:
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        return len(due)

    async def settle(self) -> None:
        """Waits for what is under way, which takes no longer than its time limit."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _claim(self, room: int) -> Sequence[Delivery]:
        return await asyncio.to_thread(self._outbox.claim_deliveries, room, LEASE_SECONDS) if room > 0 else []

    async def _deliver(self, delivery: Delivery) -> None:
        job = TraceContext.parse(delivery.traceparent)
        context, began = None if job is None else job.child(), time.time()
        status, error = await self._post(delivery, context)
        tries = 0 if status == GONE else GIVE_UP_AFTER
        result = "delivered" if error is None else "given_up" if delivery.tries >= tries else "put_off"
        if error is None:
            await asyncio.to_thread(self._outbox.delivered, delivery.id)
        else:
            await asyncio.to_thread(self._outbox.undelivered, delivery.id, error, tries)
        self._note(result)
        if context is not None:
            said: dict[str, Any] = {names.TRY: delivery.tries, names.HTTP_STATUS: status, names.JOB_ID: delivery.payload["data"]["id"]}
            record(Span(names.WEBHOOK, context, job, began, time.time(), said, error=None if error is None else result, kind="client"))

    async def _post(self, delivery: Delivery, context: TraceContext | None) -> tuple[int | None, str | None]:
        """The status, where there was one, and why the event is not delivered, where it is not."""
        try:
            body = json.dumps(delivery.payload, ensure_ascii=False, separators=(",", ":")).encode()
            headers = sign(body, id=delivery.id, timestamp=int(time.time()), secret=self._secret_of(delivery.tenant))
            headers |= {"traceparent": str(context)} if context is not None and is_recorded(context) else {}
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._outgoing.post(delivery.url, body=body, headers={**headers, "content-type": "application/json"})
        except TimeoutError:
            return None, f"did not answer within {TIMEOUT_SECONDS:g} s"
        except AiprodError as error:
            return None, error.message
        except Exception as error:
            # Unreported, it would be due again at the end of every lease, for ever.
            log.exception("webhook %s could not be posted", delivery.id)
            return None, f"could not be posted ({type(error).__name__}); the server's log says why"
        return status, None if 200 <= status < 300 else f"answered {status}"

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a webhook's delivery cannot be noted; it will be tried again", exc_info=error)
