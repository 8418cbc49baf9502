"""what went wrong -> one tree of errors that name the value and the way out

`deployments.api.errors` maps the tree to HTTP and gRPC in one place.
"""


class AiprodError(Exception):
    """The root. `code` is stable and machine-readable; `field` is the request's field at fault, where there is one."""

    code = "internal"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message, self.field = message, field

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions travel between replicas; the default reduction loses keyword-only arguments.
        return _rebuild, (type(self), self.message, self.field)


def _rebuild(kind: type[AiprodError], message: str, field: str | None) -> AiprodError:
    return kind(message, field=field)


class InvalidRequestError(AiprodError):
    """The request cannot be met as asked; the message says what can."""

    code = "invalid_request"


class InvalidMediaError(InvalidRequestError):
    """An uploaded picture or video is not what it claims to be, or is beyond the limits."""

    code = "invalid_media"


class UnknownModelError(InvalidRequestError):
    """No family or pipeline of that name is served here."""

    code = "model_not_found"


class CheckpointError(AiprodError):
    """Weights are missing, truncated or of another model; the message names the file and the remedy."""

    code = "checkpoint_invalid"


class NumericalError(InvalidRequestError):
    """What was computed is not finite: settings that are each allowed led too far together."""

    code = "not_finite"


class CancelledError(AiprodError):
    """The work was cancelled between two steps."""

    code = "cancelled"


class UnavailableError(AiprodError):
    """A stage cannot answer now; trying again later may help."""

    code = "unavailable"


class StoreUnavailableError(UnavailableError):
    """The artifact store cannot be reached now; nobody who works on a job is lost by it."""

    code = "store_unavailable"


class StoreRefusedError(StoreUnavailableError):
    """The artifact store is there and refuses what is asked of it, as it will until somebody sets it right."""

    code = "store_refused"


class WeightsChangedError(UnavailableError):
    """A stage computes with other weights or code than a job was planned for; the job must be planned anew, for `fingerprint` there."""

    code = "weights_changed"

    def __init__(self, message: str, *, field: str | None = None, stage: str = "", fingerprint: str = "") -> None:
        super().__init__(message, field=field)
        self.stage, self.fingerprint = stage, fingerprint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_refusal, (self.message, self.field, self.stage, self.fingerprint)


def _rebuild_refusal(message: str, field: str | None, stage: str, fingerprint: str) -> WeightsChangedError:
    return WeightsChangedError(message, field=field, stage=stage, fingerprint=fingerprint)


class ConfigError(AiprodError):
    """A configuration file says what nothing here understands; the message names the place and what would be."""

    code = "config_invalid"


class UnsatisfiableRangeError(InvalidRequestError):
    """A range of bytes outside of what there is: `size` bytes."""

    code = "range_not_satisfiable"

    def __init__(self, message: str, *, field: str | None = None, size: int = 0) -> None:
        super().__init__(message, field=field)
        self.size = size


class VideoFailedError(AiprodError):
    """A video that was waited for will not come."""

    code = "video_failed"


class NotFoundError(AiprodError):
    """Nothing of that name is there, or it is somebody else's."""

    code = "not_found"


class ConflictError(AiprodError):
    """What is there is in a state in which this cannot be done; the message says which."""

    code = "conflict"


class UnwatchedError(ConflictError):
    """A video that was asked for and waited for in one is stored, and cannot be waited for; asked again, it would be made twice."""

    code = "unwatched"


class IdempotencyError(AiprodError):
    """An idempotency key was used before, for another body."""

    code = "idempotency_mismatch"


class UnauthenticatedError(AiprodError):
    """No API key, or one that is unknown, expired or revoked."""

    code = "invalid_api_key"


class ForbiddenError(AiprodError):
    """The API key is not for this."""

    code = "forbidden"


class BusyError(AiprodError):
    """Not now: there is too much to do. The same request will do after `retry_after` seconds."""

    code = "busy"

    def __init__(self, message: str, *, field: str | None = None, retry_after: int = 5) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class RateLimitedError(BusyError):
    """More requests in a time than are allowed."""

    code = "rate_limited"


class QueueFullError(BusyError):
    """As many jobs wait as may."""

    code = "queue_full"


class QuotaError(BusyError):
    """As much work as a tenant may ask for."""

    code = "quota_exceeded"


class MissingArtifactError(AiprodError):
    """What was kept of a step is not there any more."""

    code = "artifact_missing"
