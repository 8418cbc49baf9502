"""where things are kept -> the job database, the artifacts and the server's secret, opened"""

import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray

from aiprod_components.errors import ConfigError
from deployments.artifacts import ArtifactStore
from deployments.jobs.analytics import EndedJobs
from deployments.jobs.database import open_database
from deployments.jobs.kept import KeptSteps
from deployments.jobs.keys import KeyStore
from deployments.jobs.live import LiveJobs
from deployments.jobs.outbox import Outbox
from deployments.jobs.records import QueueLimits
from deployments.jobs.stock import Stocktaking
from deployments.jobs.store import JobStore
from deployments.jobs.tenants import TenantStore
from deployments.settings import ApiArgs
from deployments.webhooks import webhook_secret

PEPPER_BYTES = 32


@dataclass(frozen=True)
class Storage:
    """All that survives. Everything in it blocks: call it from threads."""

    jobs: JobStore
    live: LiveJobs
    ended: EndedJobs
    kept: KeptSteps
    outbox: Outbox
    stock: Stocktaking
    keys: KeyStore
    tenants: TenantStore
    artifacts: ArtifactStore
    pepper: bytes

    def webhook_secret(self, tenant: str) -> str:
        return webhook_secret(self.pepper, tenant)


def open_storage(args: ApiArgs) -> Storage:
    """Raises ConfigError when something cannot be opened; the message says what to name instead."""
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"data {str(args.folder)!r} cannot be made ({error.strerror}); name another folder, or set AIPROD_DATA"
        ) from error
    pepper = _pepper(args.folder)
    database = open_database(args.database_url)
    return Storage(
        jobs=JobStore(database, QueueLimits(**args.queue.model_dump())),
        live=LiveJobs(database),
        ended=EndedJobs(database, gpu_hour_price=args.analytics.gpu_hour_price),
        kept=KeptSteps(database),
        outbox=Outbox(database),
        stock=Stocktaking(database),
        keys=KeyStore(database, pepper),
        tenants=TenantStore(database),
        artifacts=ArtifactStore(args.artifacts_url),
        pepper=pepper,
    )


def check_reach(args: ApiArgs) -> None:
    """Raises ConfigError where this cluster has more machines than its storage can serve; several nodes of one share its folders."""
    machines = len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})
    if machines > 1 and (fault := args.fits_one_machine_only):
        raise ConfigError(f"the cluster has {machines} machines and {fault}")
    if machines > 1 and not os.environ.get("AIPROD_PEPPER"):
        raise ConfigError(f"the cluster has {machines} machines; set AIPROD_PEPPER, a long random text, alike on all of them")


def _pepper(folder: Path) -> bytes:
    """$AIPROD_PEPPER, or what was drawn when the folder was first used."""
    if given := os.environ.get("AIPROD_PEPPER"):
        return given.encode()
    path = folder / "pepper"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder) as drawn:  # which nobody else can read
            drawn.write(secrets.token_bytes(PEPPER_BYTES))
            drawn.flush()
            with suppress(FileExistsError):  # another process was first
                os.link(drawn.name, path)
    pepper = path.read_bytes()
    if len(pepper) < PEPPER_BYTES:
        raise ConfigError(f"{path} is too short; set AIPROD_PEPPER to what it was, or remove it: API keys made before are then void")
    return pepper
