"""locust's options -> a traffic, performed by a user of each persona -> locust's report, the result as JSON, the gate as exit code

  python -m locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000 --traffic steady --slo p95=10s,errors=1%

`python -m loadtests` starts the server too. One process of locust: what is sent is some requests a second, each answered much later.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import gevent
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from aiprod_client.connecting import http_options
from aiprod_client.errors import AiprodClientError
from aiprod_components.errors import InvalidRequestError
from loadtests.faces import GrpcFace, HttpFace
from loadtests.gate import Promise, broken, read_promises
from loadtests.playing import Connect, Play
from loadtests.result import result_of
from loadtests.traffic import FACES, askers, traffic_named

BAD_INPUT = 2
GREETING = 1.0  # seconds until the first request is due: by then every persona is there
THREADS = 200  # each call over gRPC that waits for its answer takes one

init_gevent()


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    add = parser.add_argument_group("AIPROD").add_argument
    add("--traffic", default="miniature-two-minutes", help="a YAML file, or one of loadtests/traffic by name")
    add("--seconds", type=float, default=None, help="only so much of it")
    add("--face", choices=sorted(FACES), default="http", help="over what requests are sent; both: in turns")
    add("--grpc", default="127.0.0.1:9000", metavar="HOST:PORT", help="where gRPC is spoken")
    add("--slo", action="append", default=None, help="what is promised: p95=10s,errors=1%%, or of a class drafts:p95=4s; may be repeated")
    add("--patience", type=float, default=300.0, help="seconds after which a video has failed")
    add("--first-number", type=int, default=0, help="from which on requests are numbered: other numbers are other videos")
    add("--result", type=Path, default=None, help="write the result into this file, as JSON")


class Run:
    """What a run has, from its options: the play and what was promised of it."""

    play: Play
    promises: list[Promise]
    traffic: Any


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    gevent.get_hub().threadpool.maxsize = THREADS
    try:
        Run.traffic = traffic_named(options.traffic, seconds=options.seconds)
        Run.promises = read_promises(options.slo or [], classes=[each.name for each in Run.traffic.classes])
        cast = askers(Run.traffic, faces=FACES[options.face], first_number=options.first_number)
        if not cast:
            told = f"traffic: {Run.traffic.name} has no request in its first {Run.traffic.seconds:g} s; play more of it"
            raise InvalidRequestError(told, field="seconds")
        headers = http_options(environment.host or "", api_key=None, timeout=options.patience)["headers"]
    except (InvalidRequestError, AiprodClientError) as error:
        sys.stderr.write(f"load test: {error}\n")
        sys.exit(BAD_INPUT)
    noted, patience = environment.events.request, options.patience
    faces: dict[str, Connect] = {
        "http": lambda: HttpFace(environment.host or "", noted, timeout=patience, headers=headers),
        "grpc": lambda: GrpcFace(options.grpc, noted, timeout=patience, key=os.environ.get("AIPROD_API_KEY")),
    }
    Run.play = Play(cast, faces, noted, patience=patience)


@events.test_start.add_listener
def begin(**_: Any) -> None:
    Run.play.begin(after=GREETING)


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """The exit code: 0 where every promise was kept, 1 where one was broken."""
    options: Any = environment.parsed_options
    play = Run.play
    result = result_of(Run.traffic, play.rows)
    faults = broken(result, Run.promises, due=len(play.askers))
    promised = options.slo or []
    told = {"face": options.face, "slo": promised, "broken": faults, "most_late": max((row["late"] for row in play.rows), default=0.0)}
    if options.result is not None:
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(json.dumps({**told, **result}, indent=1) + "\n")
    counts = ", ".join(f"{result[status]} {status}" for status in ("completed", "cancelled", "failed"))
    sys.stderr.write(f"load test: {result['arrivals']} requests: {counts}; {result['throughput_per_minute']:.1f} videos a minute\n")
    sys.stderr.writelines(f"load test: promise broken: {fault}\n" for fault in faults)
    sys.stderr.write("" if faults else f"load test: {' '.join(promised) or 'nothing was promised, and all requests'} held\n")
    environment.process_exit_code = 1 if faults else 0


class Persona(User):
    """A user who sends the requests of one persona when they are due."""

    abstract = True
    fixed_count = 1
    persona: str

    @task
    def perform(self) -> None:
        Run.play.perform(self.persona)
        raise StopUser


class Steady(Persona):
    """Asks at random moments."""

    persona = "steady"


class Burst(Persona):
    """Asks together with others."""

    persona = "burst"


class LongVideo(Persona):
    """Asks for what occupies the stages for long."""

    persona = "long_video"


class CancelHappy(Persona):
    """Asks, and changes their mind."""

    persona = "cancel_happy"


class UntilAllIsOver(LoadTestShape):
    """One user of each persona until the last request has come to an end: nothing of the load depends on the number of users."""

    def tick(self) -> tuple[int, float] | None:
        return None if Run.play.is_over else (4, 4.0)
