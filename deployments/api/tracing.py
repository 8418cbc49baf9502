"""a request that may ask for a video -> its place in the client's trace, by its traceparent, or at the beginning of one"""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.telemetry.names import HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS
from deployments.telemetry.traces import answering

TRACEPARENT = "traceparent"
# Others are asked again and again while a video is made, and say nothing of how.
METHOD, ROUTES = "POST", "/v1/videos"
RPCS = ("CreateVideo", "RemixVideo", "EditVideo", "ExtendVideo", "GenerateVideo", "CancelVideo")


class TracedRequests:
    """An ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != METHOD or not scope["path"].startswith(ROUTES):
            await self._app(scope, receive, send)
            return
        said: dict[str, Any] = {HTTP_METHOD: METHOD}
        with answering(Headers(scope=scope).get(TRACEPARENT), METHOD, said) as request:

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.attributes[HTTP_STATUS] = status = message["status"]
                    request.error = str(status) if status >= 500 else None
                await send(message)

            try:
                await self._app(scope, receive, watch)
            finally:
                # Known when it was found: which of the routes it is.
                if route := getattr(scope.get("route"), "path", None):
                    request.name, request.attributes[HTTP_ROUTE] = f"{METHOD} {route}", route
