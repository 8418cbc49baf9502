"""what a stage says of its progress -> kept, and the work stopped where a test wants it"""

from aiprod_components.errors import CancelledError


class Counter:
    def __init__(self, *, stop_at: int | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.stop_at = stop_at

    def advance(self, done: int, total: int) -> None:
        self.seen.append((done, total))
        if done == self.stop_at:
            raise CancelledError("not wanted any more")
