"""a traffic file, or the name of one here -> its arrivals with persona and face: which request, when, by whom, over HTTP or gRPC

The personas are users of four kinds, each a class of a traffic file: `steady` asks at random moments, `burst` with many others at once,
`long_video` for what occupies a stage for long, `cancel_happy` for what is mostly cancelled. How often and for what, the file says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.traffic import Arrival, Traffic, TrafficClass

FOLDER = Path(__file__).parent / "traffic"
PERSONAS: tuple[str, ...] = get_args(TrafficClass.model_fields["persona"].annotation)
FACES = {"http": ("http",), "grpc": ("grpc",), "both": ("http", "grpc")}


@dataclass(frozen=True)
class Asker:
    """One request with who asks it, and over which face."""

    arrival: Arrival
    persona: str
    face: str


def traffic_named(text: str, *, seconds: float | None = None) -> Traffic:
    """A file, or one of those here without its ending; with `seconds` no more than its beginning.

    Raises InvalidRequestError for what is neither, and for a file that is no traffic.
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    path = known.get(text, Path(text))
    if not path.is_file():
        raise InvalidRequestError(f"traffic: there is no file {text}; name a YAML file, or {', '.join(known)}", field="traffic")
    traffic = Traffic.load(path)
    return traffic if seconds is None else traffic.model_copy(update={"seconds": min(seconds, traffic.seconds)})


def askers(traffic: Traffic, *, faces: Sequence[str], first_number: int = 0) -> list[Asker]:
    """All arrivals in order; of each class one by each face in turn. They are numbered from `first_number` on; others are other videos."""
    persona_of = {each.name: each.persona for each in traffic.classes}
    seen = dict.fromkeys(persona_of, 0)
    found: list[Asker] = []
    for arrival in traffic.arrivals():
        face = faces[seen[arrival.class_name] % len(faces)]
        seen[arrival.class_name] += 1
        found.append(Asker(replace(arrival, number=first_number + arrival.number), persona_of[arrival.class_name], face))
    return found
