"""static files, read once -> the playground's page at / and its parts under /playground/, under headers that keep strangers' code out"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from deployments.etags import is_known

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"
# Of our own, not of the operating system's table, which may call a module text/plain.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def mount(app: FastAPI, *, video_origins: Sequence[str] = ()) -> None:
    """Adds the playground to an application.

    `video_origins` are where the content of videos is redirected to, a bucket's for one (`https://bucket.example`): nothing else
    than the server itself and these may be asked by the page.
    """
    files, headers = _read_files(), _headers(video_origins)

    async def page(request: Request) -> Response:
        return _answer(request, files[PAGE], headers)

    async def part(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"the playground has no {name!r}; it begins at /")
        return _answer(request, files[name], headers)

    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/playground/{name:path}", part, methods=["GET", "HEAD"], include_in_schema=False)


def _read_files() -> dict[str, _File]:
    return {path.relative_to(STATIC).as_posix(): _read_file(path) for path in sorted(STATIC.rglob("*")) if path.is_file()}


def _read_file(path: Path) -> _File:
    content = path.read_bytes()
    return _File(content, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _headers(video_origins: Sequence[str]) -> dict[str, str]:
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' blob:",
        "connect-src": " ".join(["'self'", *video_origins]),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        "cache-control": "no-cache",  # kept, but asked after: a new release is seen at once
    }


def _answer(request: Request, file: _File, headers: dict[str, str]) -> Response:
    if is_known(file.etag, if_none_match=request.headers.get("if-none-match")):
        return Response(status_code=304, headers={**headers, "etag": file.etag})
    return Response(file.content, headers={**headers, "etag": file.etag}, media_type=file.media_type)
