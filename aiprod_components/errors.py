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


class ConfigError(AiprodError):
    """A configuration file says what nothing here understands; the message names the place and what would be."""

    code = "config_invalid"
