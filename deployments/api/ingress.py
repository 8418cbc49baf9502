"""Serve's proxy -> the HTTP and gRPC faces of one service; what they ask of the cluster"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from aiprod_components.stages import stages_of
from deployments.api.catalogue import list_models
from deployments.api.grpc import GrpcFace, add_grpc_methods
from deployments.api.http import Surroundings, health_of, make_app
from deployments.api.service import Dispatchers, make_service
from deployments.api.wire import Wire
from deployments.offered import make_offer
from deployments.pools import unplaced_now
from deployments.settings import ApiArgs
from deployments.storage import check_reach, open_storage
from deployments.telemetry.exposition import page
from deployments.telemetry.starting import start
from deployments.weights import Told, fetch_weights

log = logging.getLogger("ray.serve")

ANSWER_SECONDS = 2.0
DIGITS = 12  # of a fingerprint that are shown
CANCEL_SECONDS = 35.0  # that a cancellation waits for the replica to be free: a step, and the way there


@serve.ingress()
@add_grpc_methods
class Ingress:
    """Holds no weights and no tensors."""

    def __init__(self, args: ApiArgs, dispatcher: DeploymentHandle) -> None:
        start()
        check_reach(args)
        self._offer = make_offer(args)
        self._wire = Wire(self._offer.families, faults=self._offer.faults, default=self._offer.default)
        self._dispatcher, self._keys = dispatcher, args.keys
        self._waking: set[asyncio.Future[None]] = set()
        storage = open_storage(args)
        self._args, self._stock = args, storage.stock
        self._service = make_service(args, self._wire, storage, Dispatchers(self._wake, self._cancel))
        self.grpc_face = GrpcFace(self._service, models=list_models(self._wire), health=self._health, local_only=not args.keys)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(
            self._service, self._wire, Surroundings(self._applications, self._unplaced, self._graph, self._metrics, keys=self._keys)
        )

    async def _wake(self) -> None:
        """Not waited for: the dispatcher looks by itself too."""
        task = asyncio.ensure_future(_quietly(self._dispatcher.wake.remote()))
        self._waking.add(task)  # else nobody holds it
        task.add_done_callback(self._waking.discard)

    async def _cancel(self, job_id: str) -> None:
        try:
            await asyncio.wait_for(self._dispatcher.broadcast("cancel", job_id).results_async(), CANCEL_SECONDS)
        except (RayError, RayServeException, TimeoutError) as error:
            # The row says it already: the dispatcher's next heartbeat sees it.
            log.warning("the dispatcher was not told that %s is cancelled: %s", job_id, type(error).__name__)

    async def _applications(self) -> dict[str, str]:
        applications = (await asyncio.to_thread(serve.status)).applications
        return dict.fromkeys(self._offer.names, "ABSENT") | {name: app.status.value for name, app in applications.items()}

    async def _unplaced(self) -> dict[str, str]:
        return await asyncio.to_thread(unplaced_now)

    async def _health(self) -> dict[str, Any]:
        return health_of(await self._applications())

    async def _graph(self) -> dict[str, Any]:
        applications = (await asyncio.to_thread(serve.status)).applications
        activities = await self._ask("activity")
        told = await asyncio.to_thread(self._told)
        return {name: self._describe(name, applications.get(name), activities, told.get(name, {})) for name in self._offer.names}

    def _told(self) -> dict[str, dict[str, Told]]:
        return {name: fetch_weights(name, stages_of(family)) for name, family in self._offer.families.items()}

    def _describe(self, family: str, application: Any, activities: list[dict[str, Any]], told: Mapping[str, Told]) -> dict[str, Any]:
        deployments = {} if application is None else application.deployments
        if (fault := self._offer.faults.get(family)) is not None:
            return {"status": _status(application), "stages": [], "fault": fault}
        return {
            "status": _status(application),
            "stages": [
                {"name": name, "replicas": _running(deployments.get(name)), **_counts(activities, family, name), **_weights(told.get(name))}
                for name in stages_of(self._offer.families[family])
            ],
        }

    async def _metrics(self) -> bytes:
        stock = asyncio.to_thread(self._stock.take)
        taken, graph, applications, tallies = await asyncio.gather(stock, self._graph(), self._applications(), self._ask("figures"))
        return page(taken, args=self._args, applications=applications, graph=graph, tallies=tallies)

    async def _ask(self, what: str) -> list[Any]:
        """What each dispatcher answers; nothing while one does not."""
        try:
            return await asyncio.wait_for(self._dispatcher.broadcast(what).results_async(), ANSWER_SECONDS)
        except (RayError, RayServeException, TimeoutError):
            return []


def _status(application: Any) -> str:
    return "ABSENT" if application is None else application.status.value


def _running(deployment: Any) -> int:
    return 0 if deployment is None else deployment.replica_states.get("RUNNING", 0)


async def _quietly(response: Any) -> None:
    try:
        await response
    except (RayError, RayServeException) as error:
        log.info("the dispatcher was not woken: %s", type(error).__name__)


def _weights(told: Told | None) -> dict[str, str]:
    """By what the replica said that was the last to be given some."""
    if told is None:
        return {}
    return {"weights": told.fingerprint[:DIGITS], **({} if told.fault is None else {"fault": told.fault})}


def _counts(activities: list[dict[str, Any]], family: str, stage: str) -> dict[str, int]:
    found = [activity.get(family, {}).get(stage, {}) for activity in activities]
    return {what: sum(counts.get(what, 0) for counts in found) for what in ("running", "queued")}
