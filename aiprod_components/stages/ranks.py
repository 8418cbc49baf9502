"""a call on rank 0 -> its tensors to the other ranks, which do the same -> rank 0's answer

One network whose work several processes share, each on a device of its own. Rank 0 is the process that has the stage; it starts the
others, which follow it call by call. A follower waits for its next call as long as it takes, but within a call no rank waits for another
longer than `timeout`. Whatever goes wrong on one rank alone ends it, and with it the group: nobody is left waiting.
"""

import io
import pickle
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from aiprod_components.errors import AiprodError, UnavailableError

PARTING = 10.0  # seconds, for processes that have nothing left to do
LOCAL = "127.0.0.1"  # ranks are on one node: what they exchange in every block of a network is too much for anything slower


@runtime_checkable
class Shared(Protocol):
    """What every rank has."""

    def share(self, group: dist.ProcessGroup) -> None:
        """From now on it does only its rank's part. Raises AiprodError when it cannot be shared by so many."""
        ...


Recipe = Callable[[torch.device], Shared]
"""Makes it on a rank's own device; it is pickled on its way there."""


@dataclass(frozen=True)
class Place:
    """A rank's among so many, which meet at a port of this node; `timeout` is in seconds."""

    rank: int
    count: int
    port: int
    timeout: float


@runtime_checkable
class Follower(Protocol):
    """Rank 0's hold on another rank: a process with a `Following` in it."""

    def tell(self, method: str, *arguments: Any) -> None:
        """Asks its `Following`, and does not wait."""
        ...

    def settle(self, timeout: float | None) -> None:
        """Returns when it has been made and has done all that it was told. Raises UnavailableError when it cannot, or not in time."""
        ...

    def wait_for_end(self) -> None:
        """Returns when its process has ended."""
        ...

    def end(self) -> None:
        """Ends its process, whatever that is doing."""
        ...


Launch = Callable[[Recipe, Place], Follower]
"""Starts a process that makes what the recipe makes; does not wait for it."""


@dataclass(frozen=True)
class Ranks:
    """How many processes share a network, how the others are started, and how long one may wait for another within a call."""

    count: int
    launch: Launch
    timeout: float = 300.0


@dataclass(frozen=True)
class Order:
    """A call, without its tensors: these come from rank 0 by the fastest way that there is between the ranks."""

    method: str
    arguments: bytes
    tensors: tuple[tuple[torch.Size, torch.dtype], ...]


class Following:
    """What a rank other than 0 does, in whatever process. An error that it raises must end that process."""

    def __init__(self, recipe: Recipe, place: Place, *, device: torch.device) -> None:
        self._place, self._device = place, device
        self._made: Any = recipe(device)

    def join(self) -> None:
        with suppress(AiprodError):  # of which rank 0 hears from its own
            self._made.share(_meet(self._place, self._device))

    @torch.inference_mode()
    def obey(self, order: Order) -> None:
        tensors = [torch.empty(shape, dtype=dtype, device=self._device) for shape, dtype in order.tensors]
        _broadcast(tensors)
        arguments, options = _Unpickler(io.BytesIO(order.arguments), tensors).load()
        with suppress(AiprodError):  # as rank 0 does with the same arguments, and says so
            getattr(self._made, order.method)(*arguments, **options)

    def leave(self) -> None:
        dist.destroy_process_group()


class RankGroup:
    """What all ranks have, asked as one."""

    def __init__(self, recipe: Recipe, ranks: Ranks, *, device: torch.device) -> None:
        """Every rank makes its own at the same time. Raises AiprodError when one cannot, or when it cannot be shared by so many."""
        self._timeout, self._device = ranks.timeout, device
        self._failure: str | None = None
        self._closed = False
        self._asking = threading.Lock()
        self._group: dist.ProcessGroup | None = None
        listening = socket.create_server((LOCAL, 0))  # no other machine reaches it
        places = [Place(rank, ranks.count, listening.getsockname()[1], ranks.timeout) for rank in range(ranks.count)]
        self._followers: list[Follower] = []
        try:
            self._followers += [ranks.launch(recipe, place) for place in places[1:]]
            self.made: Any = recipe(device)
            self._settle(timeout=None)  # loading takes as long as it takes
            self._tell("join")
            self._group = _meet(places[0], device, listening)
            self.made.share(self._group)
            self._settle(timeout=self._timeout)
        except BaseException:
            self.close()
            raise
        for rank, follower in enumerate(self._followers, start=1):
            threading.Thread(target=self._watch, args=(rank, follower), name=f"rank {rank}", daemon=True).start()

    @property
    def failure(self) -> str | None:
        """Why it cannot be asked any more."""
        return self._failure

    def together(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Rank 0's answer. Raises UnavailableError when a rank is lost, on the way or before; then there is no way back."""
        with self._asking:
            if self._failure is not None or self._closed:
                raise UnavailableError(f"{self._failure or 'the ranks have ended'}; the stage is being restarted, try again")
            try:
                return self._obeyed(method, *arguments, **options)
            except (RuntimeError, UnavailableError) as error:
                self._fail(f"a rank was lost in {method}: {error}")
                raise UnavailableError(f"{self._failure}; the stage is being restarted, try again") from error
            except AiprodError:
                raise  # every rank's, so they are still together
            except BaseException:
                self._fail(f"rank 0 left the others in {method}")
                raise

    def close(self) -> None:
        """Ends the other ranks: in order while they are well and nobody asks them."""
        if self._closed:
            return
        self._closed = True
        if self._group is not None and self._asking.acquire(blocking=False):
            with suppress(UnavailableError, RuntimeError):
                self._part()
            self._asking.release()
        for follower in self._followers:
            follower.end()

    def _obeyed(self, method: str, *arguments: Any, **options: Any) -> Any:
        packed = io.BytesIO()
        pickler = _Pickler(packed)
        pickler.dump((arguments, options))
        tensors = [tensor.to(self._device) for tensor in pickler.tensors]
        self._tell("obey", Order(method, packed.getvalue(), tuple((tensor.shape, tensor.dtype) for tensor in tensors)))
        _broadcast(tensors)
        try:
            answer = getattr(self.made, method)(*arguments, **options)
        except AiprodError:
            self._settle(timeout=self._timeout)
            raise
        self._settle(timeout=self._timeout)
        return answer

    def _part(self) -> None:
        if self._failure is None:
            self._tell("leave")
        dist.destroy_process_group()
        if self._failure is None:
            self._settle(timeout=PARTING)

    def _tell(self, method: str, *arguments: Any) -> None:
        for follower in self._followers:
            follower.tell(method, *arguments)

    def _settle(self, *, timeout: float | None) -> None:
        for follower in self._followers:
            follower.settle(timeout)

    def _watch(self, rank: int, follower: Follower) -> None:
        follower.wait_for_end()
        if not self._closed:
            self._fail(f"rank {rank} has ended")

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        for follower in self._followers:
            follower.end()
        if self._group is not None and self._device.type == "cuda":
            self._group.abort()  # else this rank waits in vain for what the lost one would send; over sockets it sees it is gone


class _Pickler(pickle.Pickler):
    """Leaves tensors out, each counted once."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, Tensor):
            return None
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self.tensors)
            self.tensors.append(obj)
        return self._numbers[id(obj)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        return self._tensors[pid]


def _broadcast(tensors: Sequence[Tensor]) -> None:
    """From rank 0, as bytes: not every backend knows every type."""
    for tensor in tensors:
        dist.broadcast(tensor.contiguous().reshape(-1).view(torch.uint8), src=0)


def _meet(place: Place, device: torch.device, listening: socket.socket | None = None) -> dist.ProcessGroup:
    """Of all ranks; rank 0 is where they find each other. It is the process's own: one process computes for one network."""
    limit = timedelta(seconds=place.timeout)
    store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]  # public by PyTorch's documentation
        LOCAL,
        place.port,
        is_master=listening is not None,
        wait_for_workers=False,
        timeout=limit,
        master_listen_fd=None if listening is None else listening.detach(),
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.count, timeout=limit)
    group = dist.group.WORLD
    assert group is not None, "init_process_group sets it"
    return group
