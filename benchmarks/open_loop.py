"""arrivals -> asked for over HTTP when they are due, whatever became of those before -> what became of each"""

import asyncio
import time
from dataclasses import replace
from typing import Any

from aiprod_client.async_client import AsyncClient
from aiprod_client.errors import AiprodClientError
from aiprod_client.settings import VideoSettings
from deployments.capacity.traffic import Arrival, Traffic
from loadtests.result import result_of

PATIENCE = 900.0  # seconds for one video


async def play(url: str, traffic: Traffic, *, first_number: int = 0) -> dict[str, Any]:
    """A load test's result; numbers from `first_number` on make the videos others than those of another run."""
    arrivals = [replace(each, number=first_number + each.number) for each in traffic.arrivals()]
    async with AsyncClient(url, timeout=PATIENCE) as client:
        start = time.perf_counter()
        rows = await asyncio.gather(*(_ask(client, arrival, start=start) for arrival in arrivals))
    return result_of(traffic, rows)


async def _ask(client: AsyncClient, arrival: Arrival, *, start: float) -> dict[str, Any]:
    await asyncio.sleep(max(start + arrival.at - time.perf_counter(), 0.0))
    body = dict(arrival.body)
    prompt = body.pop("prompt")
    row: dict[str, Any] = {"class": arrival.class_name, "at": arrival.at, "stages": []}
    try:
        job = await client.create(prompt, VideoSettings(more=body))
        left = PATIENCE if arrival.cancel_after is None else start + arrival.at + arrival.cancel_after - time.perf_counter()
        try:
            job = await asyncio.wait_for(client.wait(job), max(left, 0.01))
        except TimeoutError:
            job = await client.cancel(job)
        row |= {"status": job.status, "stages": list(job.record.get("stages", []))}
    except AiprodClientError as error:
        row |= {"status": "failed", "error": str(error)}
    return {**row, "latency": time.perf_counter() - start - arrival.at}
