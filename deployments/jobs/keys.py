"""a secret, shown once -> its keyed hash, the only trace of it here -> whose it is and what it is for"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import insert, or_, select, update

from aiprod_components.errors import ConfigError
from deployments.jobs.clock import Clock
from deployments.jobs.database import Database
from deployments.jobs.tables import api_keys

SECRET = re.compile(r"ap_[A-Za-z0-9_-]{43}")  # 256 bits
PEPPER_BYTES = 32


@dataclass(frozen=True)
class KeyRecord:
    """An API key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


KEY = [api_keys.c[field.name] for field in fields(KeyRecord)]


class KeyStore:
    """API keys. Whoever reads the database learns no secret, and without the pepper cannot even check a guess."""

    def __init__(self, database: Database, pepper: bytes) -> None:
        if len(pepper) < PEPPER_BYTES:
            raise ConfigError(f"the pepper of API keys must have {PEPPER_BYTES} bytes or more, got {len(pepper)}; draw it at random, once")
        self._database, self._pepper = database, pepper

    def create(self, tenant: str, name: str, scopes: Iterable[str], expires_in: float | None) -> tuple[str, KeyRecord]:
        """The secret, which nothing can show again, and its record; `expires_in` seconds, None: never."""
        secret = f"ap_{secrets.token_urlsafe(32)}"
        row: dict[str, Any] = {
            "id": f"key_{secrets.token_hex(8)}",
            "tenant": tenant,
            "name": name,
            "scopes": sorted(scopes),
            "hash": self._hash(secret),
            "created_at": Clock(),
            "expires_at": None if expires_in is None else Clock() + expires_in,
        }
        with self._database.write() as connection:
            return secret, _record(connection.execute(insert(api_keys).values(row).returning(*KEY)).mappings().one())

    def find(self, secret: str) -> KeyRecord | None:
        """None when there is no such key, or not any more."""
        if SECRET.fullmatch(secret) is None:
            return None
        digest = self._hash(secret)
        valid = (api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > Clock()))
        with self._database.read() as connection:
            row = connection.execute(select(*KEY, api_keys.c.hash).where(api_keys.c.hash == digest, *valid)).mappings().one_or_none()
        # The index compares hashes, whose bytes a client cannot choose; the last word takes the same time for every one.
        return _record(row) if row is not None and hmac.compare_digest(row["hash"], digest) else None

    def revoke(self, key_id: str) -> bool:
        """Whether there was such a key, still in use."""
        with self._database.write() as connection:
            revoked = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=Clock())
            return connection.execute(revoked).rowcount == 1

    def _hash(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()

    def list(self, tenant: str | None = None) -> list[KeyRecord]:
        """All keys, or a tenant's, oldest first; expired and revoked ones too."""
        found = select(*KEY).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            found = found.where(api_keys.c.tenant == tenant)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(found).mappings()]


def _record(row: Mapping[Any, Any]) -> KeyRecord:
    return KeyRecord(**{column.name: row[column.name] for column in KEY if column.name != "scopes"}, scopes=frozenset(row["scopes"]))
