"""`aiprod keys …`, `tenants …`, `webhooks …` -> the database that a config names: who may ask, for how much, and who was not told

These work on the database itself, so they need no server and no key.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aiprod_client.exits import AsJson, err, group, print_json, told
from aiprod_client.server import ROOT
from aiprod_client.terminal import moment
from aiprod_components.errors import InvalidRequestError

if TYPE_CHECKING:  # Ray and SQLAlchemy take seconds to import
    from deployments.jobs.keys import KeyRecord
    from deployments.jobs.outbox import Delivery
    from deployments.storage import Storage


class Scope(StrEnum):
    """What a key is for."""

    READ = "read"
    WRITE = "write"
    METRICS = "metrics"
    ADMIN = "admin"


UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

keys = group("keys", help="API keys and the secrets of webhooks.")
tenants = group("tenants", help="The shares and limits of those who ask.")
webhooks = group("webhooks", help="Events that never arrived.")

Config = Annotated[Path, typer.Option(help="The config whose server it is.")]
TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Whose videos they are.", show_default=False)]
CONFIG = ROOT / "serve_config.yaml"


@keys.command("create")
@told()
def create_key(
    tenant: TenantName,
    name: Annotated[str, typer.Option(help="What it is for, so that you know it again.")] = "",
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat it. [default: read and write]")] = None,
    expires_in: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 90d, 12h, 30m. [default: never]")] = None,
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is printed this once: nothing here keeps it."""
    seconds = None if expires_in is None else _seconds(expires_in)
    secret, record = _open(config).keys.create(tenant, name, [one.value for one in scope or (Scope.READ, Scope.WRITE)], seconds)
    if as_json:
        print_json({"key": secret, **_key_facts(record)})
        return
    err.print(f"{record.id} of {record.tenant}; keep it now, it is not shown again", soft_wrap=True, markup=False)
    typer.echo(secret)


@keys.command("list")
@told()
def list_keys(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="Whose keys. [default: all]", show_default=False)] = None,
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """List API keys, without their secrets."""
    found = [_key_facts(record) for record in _open(config).keys.list(tenant)]
    if as_json:
        print_json({"data": found})
    else:
        Console(soft_wrap=True).print(_table(found, empty="never"))


@keys.command("revoke")
@told()
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `aiprod keys list` shows it.", show_default=False)],
    config: Config = CONFIG,
) -> None:
    """Make a key void."""
    if not _open(config).keys.revoke(key):
        raise InvalidRequestError(f"{key} is no key in use; `aiprod keys list` shows them", field="key")
    err.print(f"{key} is revoked", soft_wrap=True, markup=False)


@keys.command("webhook-secret")
@told()
def webhook_secret(tenant: TenantName, config: Config = CONFIG) -> None:
    """Print the secret that a tenant's webhooks are signed with."""
    typer.echo(_open(config).webhook_secret(tenant))


@tenants.command("set")
@told()
def set_tenant(
    tenant: TenantName,
    weight: Annotated[float | None, typer.Option(help="The share of the machines while others wait too; 1 is usual.")] = None,
    max_queued: Annotated[int | None, typer.Option(help="Videos that may wait at once.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Videos that may be made at once.")] = None,
    max_cost_per_day: Annotated[float | None, typer.Option(help="What its videos of a day may cost, as plans count it.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="What is not said goes back to the config's values.")] = False,
    config: Config = CONFIG,
) -> None:
    """Set a tenant's share and limits; what is not said stays as it is."""
    store = _open(config).tenants
    from deployments.jobs.tenants import Tenant

    known = Tenant(tenant) if reset else next((one for one in store.list() if one.tenant == tenant), Tenant(tenant))
    given = {"weight": weight, "max_queued": max_queued, "max_running": max_running, "max_cost_per_day": max_cost_per_day}
    store.put(replace(known, **{name: value for name, value in given.items() if value is not None}))


@tenants.command("list")
@told()
def list_tenants(config: Config = CONFIG, as_json: AsJson = False) -> None:
    """List the tenants for whom something is set, or who have asked for something."""
    found = [asdict(tenant) for tenant in _open(config).tenants.list()]
    if as_json:
        print_json({"data": found})
    else:
        Console(soft_wrap=True).print(_table(found, empty="default"))


@webhooks.command("list")
@told()
def list_webhooks(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100, config: Config = CONFIG, as_json: AsJson = False
) -> None:
    """List the events that were given up, the newest first, each with what went wrong at the last try. They are kept for a week."""
    found = [_event_facts(delivery) for delivery in _open(config).outbox.given_up(limit)]
    if as_json:
        print_json({"data": found})
    else:
        Console(soft_wrap=True).print(_table(found, empty="unknown"))


def _open(config: Path) -> "Storage":
    from deployments.admin import open_admin

    return open_admin(config)


def _seconds(text: str) -> float:
    if not (read := re.fullmatch(r"(\d{1,9})([smhd]?)", text, re.ASCII)) or not int(read[1]):
        raise InvalidRequestError(f"--expires-in must be a number and s, m, h or d, such as 90d, got {text!r}", field="expires_in")
    return float(int(read[1]) * UNITS[read[2]])


def _key_facts(record: "KeyRecord") -> dict[str, Any]:
    return {**asdict(record), "scopes": sorted(record.scopes)}


def _event_facts(delivery: "Delivery") -> dict[str, Any]:
    told = {"type": delivery.payload["type"], "video": delivery.payload["data"]["id"]}
    return {name: value for name, value in asdict(delivery).items() if name != "payload"} | told


def _table(records: Iterable[dict[str, Any]], *, empty: str) -> Table:
    """A row for each, with the names of their fields above."""
    table = Table(box=None)
    for number, record in enumerate(records):
        if number == 0:
            for name in record:
                table.add_column(name.removesuffix("_at"))
        table.add_row(*(_cell(name, value, empty=empty) for name, value in record.items()))
    return table


def _cell(name: str, value: Any, *, empty: str) -> str:
    if value is None:
        return empty
    if isinstance(value, list):
        return ", ".join(value)
    return moment(value) if name.endswith("_at") else escape(str(value))
