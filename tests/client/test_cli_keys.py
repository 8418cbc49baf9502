"""`aiprod keys …`, `aiprod tenants …` and `aiprod webhooks …`, on a database of their own"""

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aiprod_client.cli import app
from aiprod_client.webhooks import verify_webhook
from deployments.admin import open_admin
from deployments.storage import Storage
from tests.client.test_cli import refused
from tests.deployments.jobs.samples import new_job

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """What the commands work on."""
    monkeypatch.setenv("AIPROD_DATA", str(tmp_path))
    monkeypatch.delenv("AIPROD_PEPPER", raising=False)
    return open_admin(CONFIG)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def test_a_key_is_printed_once_and_is_valid(storage: Storage) -> None:
    result = run("keys", "create", "studio", "--name", "laptop", "--scope", "read", "--expires-in", "90d")
    assert result.exit_code == 0, result.output
    record = storage.keys.find(result.stdout.strip())
    assert record is not None
    assert (record.tenant, record.name, record.scopes) == ("studio", "laptop", frozenset({"read"}))
    assert record.expires_at is not None and abs(record.expires_at - time.time() - 90 * 86_400) < 60
    assert result.stdout.strip() not in result.stderr
    assert result.stdout.strip() not in run("keys", "list").stdout


def test_a_key_is_for_everything_and_for_ever_unless_something_else_is_said(storage: Storage) -> None:
    made = json.loads(run("keys", "create", "studio", "--json").stdout)
    record = storage.keys.find(made["key"])
    assert record is not None and record.scopes == frozenset({"read", "write"})
    assert (made["id"], made["expires_at"]) == (record.id, None)


def test_keys_are_listed_and_revoked(storage: Storage) -> None:
    secret, record = storage.keys.create("studio", "laptop", ["read"], None)
    time.sleep(0.01)  # the database's clock counts milliseconds
    storage.keys.create("lab", "desk", ["read"], None)
    assert [key["tenant"] for key in json.loads(run("keys", "list", "--json").stdout)["data"]] == ["studio", "lab"]
    assert [key["id"] for key in json.loads(run("keys", "list", "studio", "--json").stdout)["data"]] == [record.id]
    assert run("keys", "revoke", record.id).exit_code == 0
    assert storage.keys.find(secret) is None
    (row,) = [line.split() for line in run("keys", "list", "studio").stdout.splitlines()[1:]]
    assert row[:4] == [record.id, "studio", "laptop", "read"]
    assert refused(run("keys", "revoke", record.id), code=2) == f"{record.id} is no key in use; `aiprod keys list` shows them"


@pytest.mark.parametrize("text", ["0d", "soon", "5w", "-1d", "1.5h", ""])
def test_a_time_that_is_none_is_bad_input(text: str) -> None:
    assert refused(run("keys", "create", "studio", "--expires-in", text), code=2).startswith(
        "--expires-in must be a number and s, m, h or d"
    )


def test_the_webhook_secret_is_the_one_that_the_server_signs_with(storage: Storage) -> None:
    printed = run("keys", "webhook-secret", "studio").stdout.strip()
    assert printed == storage.webhook_secret("studio") != storage.webhook_secret("lab")
    assert printed.startswith("whsec_")
    with pytest.raises(Exception, match="the webhook has no webhook-id header"):
        verify_webhook(b"{}", {}, printed)


def test_what_is_set_for_a_tenant_stays_until_it_is_set_anew(storage: Storage) -> None:
    assert run("tenants", "set", "studio", "--weight", "2", "--max-queued", "5").exit_code == 0
    assert run("tenants", "set", "studio", "--max-running", "3").exit_code == 0
    (studio,) = json.loads(run("tenants", "list", "--json").stdout)["data"]
    assert studio == {"tenant": "studio", "weight": 2.0, "max_queued": 5, "max_running": 3, "max_cost_per_day": None}
    (row,) = [line.split() for line in run("tenants", "list").stdout.splitlines()[1:]]
    assert row == ["studio", "2.0", "5", "3", "default"]
    assert run("tenants", "set", "studio", "--reset", "--weight", "4").exit_code == 0
    (studio,) = storage.tenants.list()
    assert (studio.weight, studio.max_queued, studio.max_running) == (4.0, None, None)


def test_a_share_that_would_stop_the_queue_is_refused() -> None:
    assert "weight must be a positive number, got 0" in refused(run("tenants", "set", "studio", "--weight", "0"), code=1)


def test_webhooks_that_were_given_up_are_listed_with_what_went_wrong(storage: Storage) -> None:
    empty = run("webhooks", "list")
    assert (empty.exit_code, empty.stdout.strip()) == (0, "")
    ids = [ended(storage, url) for url in ("https://a.example/[/hook]", "https://b.example/late")]
    for delivery in storage.outbox.claim_deliveries(9, 60):
        storage.outbox.undelivered(delivery.id, "answered [503]", give_up_after=1 if delivery.payload["data"]["id"] == ids[0] else 8)
    (lost,) = json.loads(run("webhooks", "list", "--json").stdout)["data"]
    assert (lost["tenant"], lost["url"], lost["tries"], lost["error"]) == ("studio", "https://a.example/[/hook]", 1, "answered [503]")
    assert (lost["type"], lost["video"]) == ("video.cancelled", ids[0])
    (row,) = run("webhooks", "list").stdout.splitlines()[1:]
    assert all(text in row for text in (lost["id"], "studio", "https://a.example/[/hook]", "answered [503]", ids[0]))


def test_of_webhooks_that_were_given_up_the_newest_come_first(storage: Storage) -> None:
    ids = [ended(storage, f"https://{name}.example") for name in "abc"]
    for delivery in storage.outbox.claim_deliveries(9, 60):
        storage.outbox.undelivered(delivery.id, "refused", give_up_after=1)
    assert [lost["video"] for lost in json.loads(run("webhooks", "list", "--limit", "2", "--json").stdout)["data"]] == ids[:0:-1]


def ended(storage: Storage, url: str) -> str:
    """A video whose end was to be told to a URL."""
    job, _ = storage.jobs.create(new_job("studio", webhook_url=url))
    assert storage.jobs.cancel("studio", job.id)
    time.sleep(0.01)  # the database's clock counts milliseconds
    return job.id


def test_a_config_that_is_not_there_is_said() -> None:
    assert "no_config.yaml" in refused(run("keys", "list", "--config", "no_config.yaml"), code=1)
