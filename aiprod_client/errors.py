"""a refusal, a silence, a video that will not be -> an error that says what to do"""

from aiprod_client.video import VideoJob

_NOT_THE_REQUEST = {401, 403, 408, 409, 429}  # refused, but asking for something else would not help
_THE_REQUEST = {"invalid_request", "invalid_media", "model_not_found", "not_finite"}  # codes of whose fault it is, whatever the status


class AiprodClientError(Exception):
    """What the server said: `message`, the request's field at fault (`param`), a stable `code`, the HTTP status (None: no answer).

    `request_id` finds the request in the server's log.
    """

    def __init__(
        self, message: str, *, code: str, param: str | None = None, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.param, self.status, self.request_id = message, code, param, status, request_id

    @property
    def is_bad_input(self) -> bool:
        """Whether another request would fare better."""
        refused = self.status is not None and 400 <= self.status < 499 and self.status not in _NOT_THE_REQUEST
        return refused or self.code in _THE_REQUEST


class NoAnswerError(AiprodClientError):
    """The server was not reached, or fell silent."""


class _JobError(AiprodClientError):
    """`job` is its last known state."""

    def __init__(self, message: str, *, code: str, job: VideoJob) -> None:
        super().__init__(message, code=code)
        self.job = job


class VideoFailedError(_JobError):
    """The server could not make the video; `code` and `message` say why."""


class VideoCancelledError(_JobError):
    """Somebody cancelled the video."""


class VideoTimeoutError(AiprodClientError):
    """The video was not finished in the time that was given to it. The server goes on with it."""


class WebhookVerificationError(AiprodClientError):
    """A webhook that the server did not sign, or not lately: do not act on it."""
