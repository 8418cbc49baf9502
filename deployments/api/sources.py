"""a body that builds on something else (a finished video, an upload, an address) -> what is asked for, complete"""

import asyncio
import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiprod_components.errors import InvalidRequestError, MissingArtifactError, NotFoundError
from aiprod_components.families.base import Family
from aiprod_components.media.probe import MAX_BYTES
from aiprod_components.pipelines import explain, shown
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.derived import extend_request, remix_request
from aiprod_components.pipelines.keyframe_interpolation import MOST_KEYFRAMES
from deployments.api.body import Body
from deployments.api.wire import Asked, Priority, Seconds, WebhookUrl, Wire, wire_names
from deployments.artifacts import file_key
from deployments.assigning import load_job_request
from deployments.jobs.records import Job
from deployments.outgoing import Outgoing
from deployments.storage import Storage

REFERENCE = "reference_video"
ADDRESS = re.compile("https?://", re.IGNORECASE)
MOST_ADDRESSES, AT_ONCE = 3 + MOST_KEYFRAMES, 4  # of one body
URLS = ("image_url", "video_url", "audio_url")
# Of an edit's source: what the new video has too, unless the body says otherwise.
INHERITED = ("size", "num_frames", "fps")


class RemixFields(BaseModel):
    """What may be said of a remix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1, description="What the new video shows.")]
    priority: Priority = 0
    webhook_url: WebhookUrl = ""


class ExtensionFields(RemixFields):
    """What may be said of an extension: its length in seconds besides."""

    seconds: Annotated[Seconds, Field(le=86_400, description="How much longer the video becomes.")]


class Sources:
    """Reads such bodies. Its methods block, but for `fetched`."""

    def __init__(self, wire: Wire, storage: Storage) -> None:
        self._wire, self._storage = wire, storage

    async def fetched(self, body: Body, outgoing: Outgoing) -> Body:
        """The body with media in place of the addresses that it names. Raises InvalidRequestError where none may be fetched."""
        addresses = {url: field for field, url in _addresses(body.fields)}
        if len(addresses) > MOST_ADDRESSES:
            raise InvalidRequestError(f"the body names {len(addresses)} addresses, and at most {MOST_ADDRESSES} are fetched; send files")

        fetching = asyncio.Semaphore(AT_ONCE)

        async def fetch(url: str, field: str) -> bytes:
            async with fetching:
                return await outgoing.fetch(url, field=field, max_bytes=MAX_BYTES)

        contents = await asyncio.gather(*(fetch(url, field) for url, field in addresses.items()))
        data_urls = {url: _data_url(data) for url, data in zip(addresses, contents, strict=True)}
        return replace(body, fields=_with_data(body.fields, data_urls)) if data_urls else body

    def split(self, body: Body) -> tuple[str | None, Body]:
        """The id in `video`, and the body without it; no id where `video` is an upload, which is the reference then."""
        fields, files = dict(body.fields), dict(body.files)
        named = fields.pop("video", None)
        if "video" in files and named is None:
            return None, Body(fields, {**{k: v for k, v in files.items() if k != "video"}, REFERENCE: files["video"]}, body.is_json)
        if isinstance(named, Mapping) and set(named) == {"video_url"}:
            return None, Body({**fields, REFERENCE: dict(named)}, files, body.is_json)
        if isinstance(named, Mapping) and set(named) == {"id"} and isinstance(named["id"], str):
            return named["id"], Body(fields, files, body.is_json)
        given = "nothing" if named is None else shown(named)
        raise InvalidRequestError(
            f'video must be {{"id": …}} of a finished video, or a file in a multipart body, got {given}', field="video"
        )

    def remixed(self, source: Job, body: Body) -> Asked:
        fields = _read(RemixFields, body)
        return self._asked(source, fields, lambda request, family: remix_request(request, prompt=fields.prompt))

    def extended(self, source: Job, body: Body) -> Asked:
        fields = _read(ExtensionFields, body)

        def longer(request: VideoRequest, family: Family) -> VideoRequest:
            num_frames = round(fields.seconds * request.frame_rate)
            try:
                return extend_request(request, prompt=fields.prompt, num_frames=num_frames, family=family)
            except InvalidRequestError as error:
                told = {"num_frames": "seconds", "extends": "video"}.get(error.field or "", error.field)
                raise InvalidRequestError(f"{told}: {error.message}", field=told) from error

        return self._asked(source, fields, longer)

    def edited(self, source: Job, body: Body) -> Body:
        """The body of an IC-LoRA request whose reference is the source."""
        if source.shown["size"] is None:
            raise InvalidRequestError(
                f"video {source.id} is a sound alone; fetch it, and send it as sound of a new video instead", field="video"
            )
        if source.shown["num_frames"] == 1:
            raise InvalidRequestError(f"video {source.id} is a still; send it as input_reference of a new video instead", field="video")
        inherited = {name: source.shown[name] for name in INHERITED if not (name == "num_frames" and "seconds" in body.fields)}
        defaults = {"model": source.family, **inherited}
        fields = {**(defaults if body.is_json else {name: str(value) for name, value in defaults.items()}), **body.fields}
        return Body(fields, {**body.files, REFERENCE: self._video_of(source)}, body.is_json)

    def _asked(self, source: Job, fields: RemixFields, change: Callable[[VideoRequest, Family], VideoRequest]) -> Asked:
        self._wire.check_fault(source.family)
        if source.family not in self._wire.families:
            raise NotFoundError(f"model {source.family} of video {source.id} is not served any more", field="video")
        family = self._wire.families[source.family]
        with wire_names():
            try:
                request = change(load_job_request(source, family=family, storage=self._storage), family)
            except MissingArtifactError as error:
                raise NotFoundError(f"what was uploaded for video {source.id} is not there any more", field="video") from error
            return Asked(family, request, request.plan(family), fields.priority, fields.webhook_url or None)

    def _video_of(self, source: Job) -> bytes:
        assert source.output is not None, "a completed job has an output"
        try:
            return self._storage.artifacts.get(file_key(source.output["prefix"], "video"))
        except MissingArtifactError as error:
            raise NotFoundError(f"video {source.id} is not there any more", field="video") from error


def _read(kind: type[Any], body: Body) -> Any:
    """The fields of a body, of which texts may stand for numbers: a form has nothing else."""
    if body.files:
        name = next(iter(body.files))
        raise InvalidRequestError(f"{name} is a file, and this takes none; leave it out", field=name)
    try:
        return kind.model_validate(body.fields)
    except ValidationError as error:
        raise explain(error, known=list(kind.model_fields)) from error


def _addresses(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a medium is named by an address: field and address."""
    keyframes = fields.get("keyframes")
    places = [(f"keyframes.{index}", keyframe) for index, keyframe in enumerate(keyframes if isinstance(keyframes, list) else ())]
    for field, medium in [*((name, fields.get(name)) for name in ("input_reference", REFERENCE, "sound")), *places]:
        for name in URLS:
            url = medium.get(name) if isinstance(medium, Mapping) else None
            if isinstance(url, str) and ADDRESS.match(url):
                yield f"{field}.{name}", url


def _data_url(data: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"


def _with_data(value: Any, data_urls: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            name: data_urls.get(inner, inner) if name in URLS and isinstance(inner, str) else _with_data(inner, data_urls)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_with_data(inner, data_urls) for inner in value]
    return value
