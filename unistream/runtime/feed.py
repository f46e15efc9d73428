"""Between a reader and the tick: a bounded queue filled by the source's own thread."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from unistream.clock import Clock
from unistream.config import Settings
from unistream.io.base import Backlog, Chunk, Exhausted, Position, Reader, Wait


@dataclass(frozen=True, slots=True)
class Status:
    """Where a feed stands: `exhausted` for good, `caught_up` when all that was available has been queued."""

    exhausted: bool = False
    caught_up: bool = False
    waiting_for: str = ""


class Feed(ABC):
    """What the tick sees of a source."""

    @abstractmethod
    def take(self, max_rows: int, max_bytes: int) -> list[Chunk]:
        """What is available now, up to about these bounds; raises what the reader raised."""

    @abstractmethod
    def status(self) -> Status:
        """Where it stands, with the queue empty: exhausted and caught up only once everything was taken."""

    @abstractmethod
    def pending(self) -> Mapping[str, int | None]:
        """The reader's splits that have given nothing yet, as of the chunks taken."""

    @abstractmethod
    def backlog(self) -> Backlog:
        """What is known to lie ahead of the tick."""

    @abstractmethod
    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """A checkpoint with these positions is durable."""

    @abstractmethod
    def close(self) -> None:
        """Stop reading and give back the reader's resources."""


class InlineFeed(Feed):
    """Polls the reader within the tick; for tests and simulations, where nothing may happen by itself."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._status = Status()

    def take(self, max_rows: int, max_bytes: int) -> list[Chunk]:
        result = self._reader.poll(max_rows)
        match result:
            case Chunk():
                self._status = Status()
                return [result]
            case Wait():
                self._status = Status(caught_up=result.caught_up, waiting_for=result.reason)
            case Exhausted():
                self._status = Status(exhausted=True, caught_up=True)
        return []

    def status(self) -> Status:
        return self._status

    def pending(self) -> Mapping[str, int | None]:
        return self._reader.pending()

    def backlog(self) -> Backlog:
        return self._reader.backlog()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        self._reader.acknowledge(positions)

    def close(self) -> None:
        self._reader.close()


class ThreadedFeed(Feed):
    """Reads ahead on a thread of its own; a full queue makes the reader wait, which is the backpressure."""

    def __init__(
        self, name: str, reader: Reader, settings: Settings, clock: Clock, wake: threading.Event
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._queue: deque[tuple[Chunk, Mapping[str, int | None]]] = deque()
        self._queued_bytes = 0
        self._room = threading.Condition()
        self._stopping = threading.Event()
        self._reader_status = Status()
        self._pending: Mapping[str, int | None] = {}
        self._acknowledged: Mapping[str, Position] | None = None
        self._error: BaseException | None = None
        self._pending = reader.pending()
        self._thread = threading.Thread(target=self._read, name=f"unistream-{name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while not self._stopping.is_set():
                self._pass_on_acknowledgement()
                result = self._reader.poll(self._settings.tick_rows)
                match result:
                    case Chunk():
                        self._put(result)
                    case Wait():
                        self._reader_status = Status(caught_up=result.caught_up, waiting_for=result.reason)
                        self._wake.set()
                        self._clock.wait(self._stopping, result.seconds)
                    case Exhausted():
                        self._reader_status = Status(exhausted=True, caught_up=True)
                        break
        except BaseException as error:  # whatever it is, the job has to hear of it
            self._error = error
        finally:
            self._wake.set()

    def _put(self, chunk: Chunk) -> None:
        pending = self._reader.pending()
        with self._room:
            while self._is_full() and not self._stopping.is_set():
                self._room.wait()
            self._reader_status = Status()
            self._queue.append((chunk, pending))
            self._queued_bytes += chunk.nbytes
        self._wake.set()

    def _is_full(self) -> bool:
        too_many = len(self._queue) >= self._settings.queue_chunks
        return too_many or (self._queued_bytes >= self._settings.queue_bytes and bool(self._queue))

    def _pass_on_acknowledgement(self) -> None:
        positions, self._acknowledged = self._acknowledged, None
        if positions is not None:
            self._reader.acknowledge(positions)

    def take(self, max_rows: int, max_bytes: int) -> list[Chunk]:
        taken: list[Chunk] = []
        rows = nbytes = 0
        with self._room:
            while self._queue and rows < max_rows and nbytes < max_bytes:
                chunk, self._pending = self._queue.popleft()
                taken.append(chunk)
                rows += chunk.frame.height
                nbytes += chunk.nbytes
            self._queued_bytes -= nbytes
            self._room.notify()
        if not taken and self._error is not None and not self._queue:
            raise self._error
        return taken

    def status(self) -> Status:
        with self._room:
            return Status() if self._queue or self._error is not None else self._reader_status

    def pending(self) -> Mapping[str, int | None]:
        return self._pending

    def backlog(self) -> Backlog:
        ahead = self._reader.backlog()
        with self._room:
            rows = sum(chunk.frame.height for chunk, _ in self._queue)
            nbytes = self._queued_bytes
        return Backlog(
            rows=rows if ahead.rows is None else ahead.rows + rows,
            nbytes=nbytes if ahead.nbytes is None else ahead.nbytes + nbytes,
            total_rows=ahead.total_rows,
            total_bytes=ahead.total_bytes,
        )

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        # Handed to the reader on its own thread; a newer one replaces one not yet passed on.
        self._acknowledged = positions

    def close(self) -> None:
        self._stopping.set()
        with self._room:
            self._room.notify_all()
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            self._pass_on_acknowledgement()
            self._reader.close()
