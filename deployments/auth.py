"""authorization header -> who calls, what they may do, and whether they may do it again so soon"""

import asyncio
import ipaddress
import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from aiprod_components.errors import ConfigError, ForbiddenError, RateLimitedError, UnauthenticatedError
from deployments.jobs.keys import KeyStore

# The last two for the operator's own: figures of all tenants together, and what each of them used.
READ, WRITE, METRICS, ADMIN = "read", "write", "metrics", "admin"
SCOPES = (READ, WRITE, METRICS, ADMIN)
LOCAL_TENANT = "local"  # whose all is where no keys are asked for
LONGEST_WAIT = 120  # seconds that a client is told to wait at most


@dataclass(frozen=True)
class Caller:
    """Who calls. One tenant never learns of another's videos."""

    tenant: str
    scopes: frozenset[str]
    key_id: str | None = None


class Authenticator:
    """Checks keys, scopes and rates. Counts requests in this process alone: with several replicas a key has as many times its rate."""

    def __init__(self, keys: KeyStore, *, are_needed: bool, rate: str) -> None:
        self._keys, self._are_needed = keys, are_needed
        self._rate: RateLimitItem = parse_rate(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def caller(self, authorization: str | None, *, scope: str) -> Caller:
        """Raises UnauthenticatedError, ForbiddenError or RateLimitedError."""
        caller = await self._identify(authorization)
        identity = caller.key_id or caller.tenant
        if not self._limiter.hit(self._rate, identity):
            reset_at = self._limiter.get_window_stats(self._rate, identity).reset_time
            wait = min(max(math.ceil(reset_at - time.time()), 1), LONGEST_WAIT)
            raise RateLimitedError(f"more than {self._rate}; try again in {wait} s", retry_after=wait)
        if scope not in caller.scopes:
            raise ForbiddenError(
                f"this key is for {', '.join(sorted(caller.scopes)) or 'nothing'}, and this needs {scope}; ask for a key with it"
            )
        return caller

    async def _identify(self, authorization: str | None) -> Caller:
        if not self._are_needed:
            return Caller(LOCAL_TENANT, frozenset(SCOPES))
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            raise UnauthenticatedError("an API key is needed; send it as: Authorization: Bearer ap_…")
        found = await asyncio.to_thread(self._keys.find, secret.strip())
        if found is None:
            raise UnauthenticatedError("the API key is unknown, expired or revoked; make one with: aiprod keys create")
        return Caller(found.tenant, frozenset(found.scopes), found.id)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def parse_rate(rate: str) -> RateLimitItem:
    """Raises ConfigError."""
    try:
        return parse(rate)
    except ValueError as error:
        raise ConfigError(f"rate must be such as 600/minute, got {rate!r}") from error
