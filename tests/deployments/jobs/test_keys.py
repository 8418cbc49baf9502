"""API keys and what is set for tenants -> who may come in, and with which limits"""

import time

import pytest
from sqlalchemy import select, update

from aiprod_components.errors import ConfigError
from deployments.jobs.database import Database
from deployments.jobs.keys import SECRET, KeyStore
from deployments.jobs.store import JobStore
from deployments.jobs.tables import api_keys
from deployments.jobs.tenants import Tenant, TenantStore
from tests.deployments.jobs.samples import claim, create

PEPPER = bytes(range(32))


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database, PEPPER)


def test_a_key_is_found_by_its_secret_alone(keys: KeyStore) -> None:
    secret, key = keys.create("ada", "notebook", {"read", "write"}, expires_in=None)
    other, _ = keys.create("eve", "phone", {"read"}, expires_in=3600)
    assert SECRET.fullmatch(secret) and secret != other
    assert keys.find(secret) == key
    assert (key.tenant, key.name, key.scopes, key.expires_at, key.revoked_at) == ("ada", "notebook", {"read", "write"}, None, None)
    for wrong in (key.id, "", "ap_", secret[:-1], secret + "A", secret.swapcase(), f"{secret}\n", "ap_" + "é" * 43):
        assert keys.find(wrong) is None


def test_the_database_holds_no_secret_and_nothing_to_check_one_with(keys: KeyStore, database: Database) -> None:
    secret, _ = keys.create("ada", "notebook", {"read"}, expires_in=None)
    with database.read() as connection:
        (row,) = connection.execute(select(api_keys)).all()
    assert secret not in str(row) and secret[3:] not in str(row)
    assert KeyStore(database, PEPPER[::-1]).find(secret) is None


def test_a_key_ends_at_its_time(keys: KeyStore, database: Database) -> None:
    secret, key = keys.create("ada", "notebook", {"read"}, expires_in=60)
    assert keys.find(secret) == key and key.expires_at is not None and key.expires_at - key.created_at == pytest.approx(60, abs=1)
    with database.write() as connection:
        connection.execute(update(api_keys).values(expires_at=api_keys.c.expires_at - 61))
    assert keys.find(secret) is None


def test_a_revoked_key_opens_nothing_and_is_still_listed(keys: KeyStore) -> None:
    secret, key = keys.create("ada", "notebook", {"read"}, expires_in=None)
    time.sleep(0.01)  # a database's clock may count milliseconds
    _, other = keys.create("eve", "phone", {"read"}, expires_in=None)
    assert keys.revoke(key.id) and not keys.revoke(key.id) and not keys.revoke("key_0")
    assert keys.find(secret) is None
    assert [(found.id, found.revoked_at is None) for found in keys.list()] == [(key.id, False), (other.id, True)]
    assert [found.id for found in keys.list("eve")] == [other.id]


def test_a_short_pepper_is_refused(database: Database) -> None:
    with pytest.raises(ConfigError, match="must have 32 bytes or more, got 8"):
        KeyStore(database, b"password")


def test_what_is_set_for_a_tenant_replaces_what_was(database: Database) -> None:
    tenants = TenantStore(database)
    tenants.put(Tenant("eve", weight=2.0, max_queued=5, max_running=1, max_cost_per_day=9.5))
    tenants.put(Tenant("ada"))
    tenants.put(Tenant("eve", weight=3.0))
    assert tenants.list() == [Tenant("ada"), Tenant("eve", weight=3.0)]


def test_setting_a_tenant_does_not_forget_that_it_was_served(store: JobStore, database: Database) -> None:
    for tenant in ("ada", "ada", "bob", "bob"):
        create(store, tenant)
    claim(store)
    TenantStore(database).put(Tenant("ada", weight=1.0))
    assert claim(store).tenant == "bob"


@pytest.mark.parametrize("field", ["weight", "max_queued", "max_running", "max_cost_per_day"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_value_that_would_stop_the_queue_is_refused(database: Database, field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be .*, got {value:g}") as caught:
        TenantStore(database).put(Tenant("ada", **{field: value}))  # pyright: ignore[reportArgumentType]
    assert caught.value.field == field
