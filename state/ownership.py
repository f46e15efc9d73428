"""One owner per checkpoint directory, and why a former one can never commit.

Ownership has an epoch: a number claimed by creating `owners/<epoch>.json`, which succeeds once. All
checkpoints of a directory, of every epoch, share one sequence of names `checkpoints/<id>.json`, each
created once and without holes: an owner that skips an id first creates a gap record under it. Hence an
owner can only ever create the name right behind the last one it knows.

A new owner claims its epoch, then closes the next free id with a gap record, trying again one further when
the former owner was faster. So for every checkpoint of the former owner there are two cases:

* it was created before the gap: the new owner sees it, restores from it and commits its tokens again;
* it was not: its name is the closed one, so the create fails, and so do all after it.

No clock and no check that could be outdated is part of this. A process that was paused for an hour between
any two instructions falls under the second case. `check` before and after each create gives the clear
message, and is the second line of defence if somebody removed a gap record.

Who may become owner is only a question of politeness: a lock that ends with its process where the file
system has locks, else the record of the last owner: its process is gone, or it has not renewed for a while.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from unistream.clock import Clock, Random
from unistream.durations import Duration, microseconds
from unistream.errors import StateError
from unistream.faults import point
from unistream.state.manifest import Gap, file_epoch, seal, unseal
from unistream.state.process import here, is_dead
from unistream.state.storage import InUse, Lock, NameTaken, NotStored, Storage

CHECKPOINTS = "checkpoints"
OWNERS = "owners"
LOCK = "lock"
KEPT_RECORDS = 100
"""Owners of the past whose records and gaps stay, each two small files."""

_NUMBERED = re.compile(r"(?:checkpoints|owners)/(\d{8,18})\.json", re.ASCII)


class Owner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who claimed an epoch. `machine` and `started` tell whether `pid` can be looked up from here."""

    epoch: int
    job_id: str
    token: str
    claimed: int
    host: str
    machine: str
    pid: int
    started: int | None

    def __str__(self) -> str:
        since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.claimed)
        return f"process {self.pid} on {self.host} (job {self.job_id}, since {since:%Y-%m-%d %H:%M:%S} UTC)"


class Lease:
    """Ownership of a directory, until `release` or the end of the process. Usable from any thread."""

    def __init__(
        self, storage: Storage, owner: Owner, lock: Lock | None, clock: Clock, period: int, last: int
    ) -> None:
        self.storage = storage
        self.owner = owner
        self.last = last
        self._lock = lock
        self._clock = clock
        self._period = period
        self._renewed = owner.claimed
        self._open = True
        self._mutex = threading.RLock()

    @property
    def epoch(self) -> int:
        """Greater than that of every owner before."""
        return self.owner.epoch

    @property
    def job_id(self) -> str:
        """The job that the directory belongs to."""
        return self.owner.job_id

    def check(self) -> None:
        """Raise `StateError` when this is no longer the owner."""
        if not self._open:
            raise StateError(f"{self.storage.url} was given up by this job", hint="start the job again")
        if newest_epoch(self.storage) > self.epoch:
            raise self._fenced()

    def append(self, id: int, data: bytes) -> None:
        """Create the record of a checkpoint id, and gap records for the ids skipped before it.

        Raises `StateError` when another owner came, even if the record could still be created: that owner
        goes on from it and commits it, so this one must not.
        """
        with self._mutex:
            self.check()
            if id <= self.last:
                raise StateError(
                    f"Checkpoint id {id} is not above {self.last}, the last one in {self.storage.url}",
                    hint="ids only grow; take `CheckpointStore.next_id`",
                )
            for skipped in range(self.last + 1, id):
                self._create(skipped, seal(Gap(id=skipped, epoch=self.epoch, closed_by_next=False)))
            self._create(id, data)
            self.check()

    def begin_after(self, id: int) -> None:
        """Use no id up to this one, in a directory that goes on from a checkpoint of another.

        No former owner can be hurt by the hole: the name that each would create next is taken.
        """
        with self._mutex:
            self.check()
            if id > self.last:
                self._create(id, seal(Gap(id=id, epoch=self.epoch, closed_by_next=False)))

    @property
    def renewal_is_due(self) -> bool:
        """Whether `renew` would write something."""
        silent = self._clock.now() - self._renewed
        return self._open and self._lock is None and silent >= self._period // 3

    def renew(self) -> None:
        """Say that the owner lives; to be called every few seconds. Cheap: mostly it does nothing."""
        now = self._clock.now()
        if self.renewal_is_due:
            self.storage.replace(_name(OWNERS, self.epoch, "alive"), b"%d" % now)
            self._renewed = now

    def release(self) -> None:
        """Give the directory up, so that another process may own it at once."""
        with self._mutex:
            was_open, self._open = self._open, False
            if not was_open:
                return
            if self._lock is not None:
                self._lock.release()
            else:
                self.storage.replace(_name(OWNERS, self.epoch, "released"), b"")

    def abandon(self) -> None:
        """What the end of the process would do: the lock is free, nothing is written."""
        self._open = False
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.release()
        else:
            self.abandon()

    def _create(self, id: int, data: bytes) -> None:
        try:
            self.storage.publish(_name(CHECKPOINTS, id), data)
        except (NameTaken, NotStored) as error:
            # The next owner took the name, or cleared what was not finished.
            raise self._fenced() from error
        self.last = id

    def _fenced(self) -> StateError:
        if newest_epoch(self.storage) == self.epoch:
            return StateError(
                f"{self.storage.url} has a checkpoint {self.last + 1} already: "
                "an earlier attempt, whose answer was lost, has created it",
                hint="restart the job: it goes on from the newest checkpoint",
            )
        owner = _owner(self.storage, newest_epoch(self.storage))
        return StateError(
            f"{self.storage.url} was taken over by {owner or 'another process'}",
            hint="this job stops without committing; the other one goes on from the last checkpoint",
        )


def own(
    storage: Storage,
    job_id: str | None,
    clock: Clock,
    random: Random,
    *,
    lease: Duration = "30s",
    take_over: bool = False,
) -> Lease:
    """Become the owner of a checkpoint directory, or raise `StateError` at once when somebody else is.

    Call it before reading the newest checkpoint: what the former owner publishes up to here is seen, what
    it tries later is refused. A directory belongs to one job; `job_id` None means whatever job it has, and
    a new one makes an id. The directory of a dead process is taken over by itself; `take_over` does so
    from a living one, such as one that hangs. Without locks, `lease` is how long an owner of another
    machine may be silent before it counts as dead; `Lease.renew` has to be called more often.

    >>> import tempfile
    >>> from unistream.clock import SystemClock
    >>> from unistream.state.storage import storage_for
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with own(storage_for(folder), "orders", SystemClock(), Random(1)) as mine:
    ...         mine.epoch
    1
    """
    try:
        lock = storage.lock(LOCK, take_over=take_over)
    except InUse as error:
        raise _refused(storage, _owner(storage, newest_epoch(storage))) from error
    try:
        owner = _claim(storage, job_id, clock, random, None if take_over or lock else microseconds(lease))
        storage.clear_unfinished()
        last = _close_next(storage, owner.epoch)
        return Lease(storage, owner, lock, clock, microseconds(lease), last)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def sequence(storage: Storage) -> list[int]:
    """Every id of the sequence, gaps among them, ascending."""
    return _numbers(storage, CHECKPOINTS)


def newest_epoch(storage: Storage) -> int:
    """The epoch of the last claim; 0 when there was none."""
    return max(_numbers(storage, OWNERS), default=0)


def checkpoint_name(id: int) -> str:
    """The file of a checkpoint."""
    return _name(CHECKPOINTS, id)


def owners(storage: Storage) -> list[str]:
    """The names of the records of owners, oldest first."""
    return [_name(OWNERS, number) for number in _numbers(storage, OWNERS)]


def forget_owners(storage: Storage, epoch: int) -> None:
    """Remove the records of owners long before this epoch."""
    old = [number for number in _numbers(storage, OWNERS) if number <= epoch - KEPT_RECORDS]
    if old:
        endings = ("json", "alive", "released")
        storage.delete(_name(OWNERS, number, ending) for number in old for ending in endings)


def _claim(storage: Storage, job_id: str | None, clock: Clock, random: Random, lease: int | None) -> Owner:
    """Create the record of the next epoch; `lease` is None when no living owner is to be respected."""
    epoch = newest_epoch(storage)
    former = _owner(storage, epoch)
    if former is not None:
        if lease is not None and not _is_gone(storage, former, clock.now(), lease):
            raise _refused(storage, former)
        if job_id not in (None, former.job_id):
            raise StateError(
                f"{storage.url} holds the checkpoints of job {former.job_id!r}, not of {job_id!r}",
                hint="use another checkpoint directory, or a savepoint of that job",
            )
    elif epoch == 0:
        # Somebody removed all records of owners: an epoch must not be used twice all the same.
        epoch = max((file_epoch(item.name) or 0 for item in storage.list("files")), default=0)
    owner = Owner(
        epoch=epoch + 1,
        job_id=former.job_id if former else job_id or random.token(),
        token=random.token(32),
        claimed=clock.now(),
        **here(),
    )
    try:
        with point("ownership.claim"):
            storage.publish(_name(OWNERS, owner.epoch), seal(owner))
    except NameTaken as error:
        raise _refused(storage, _owner(storage, owner.epoch)) from error
    return owner


def _close_next(storage: Storage, epoch: int) -> int:
    """Take the id that a former owner would use next; the last id of the sequence is returned."""
    last = max(sequence(storage), default=0)
    while epoch > 1 or last:
        last += 1
        newest = newest_epoch(storage)
        if newest > epoch:
            raise _refused(storage, _owner(storage, newest))
        try:
            with point("ownership.close"):
                gap = Gap(id=last, epoch=epoch, closed_by_next=True)
                storage.publish(_name(CHECKPOINTS, last), seal(gap))
            break
        except NameTaken:
            continue
    return last


def _is_gone(storage: Storage, owner: Owner, now: int, lease: int) -> bool:
    """Whether an owner that holds no lock gave up, died, or has been silent for too long."""
    if storage.exists(_name(OWNERS, owner.epoch, "released")) or is_dead(owner):
        return True
    try:
        heard = int(storage.read(_name(OWNERS, owner.epoch, "alive")))
    except (NotStored, ValueError):
        heard = owner.claimed
    return now - max(heard, owner.claimed) > lease


def read_owner(storage: Storage, name: str) -> Owner:
    """The owner in one of these records."""
    owner: Owner = unseal(storage.read(name), Owner, f"{storage.url}/{name}")
    return owner


def _owner(storage: Storage, epoch: int) -> Owner | None:
    if epoch == 0:
        return None
    return read_owner(storage, _name(OWNERS, epoch))


def _refused(storage: Storage, owner: Owner | None) -> StateError:
    return StateError(
        f"{storage.url} is in use by {owner or 'another process that is just starting'}",
        hint="stop that job (or end its process if it hangs), or use another checkpoint directory",
    )


def _name(folder: str, number: int, ending: str = "json") -> str:
    return f"{folder}/{number:08d}.{ending}"


def _numbers(storage: Storage, folder: str) -> list[int]:
    return sorted(_parsed(item.name for item in storage.list(folder)))


def _parsed(names: Iterable[str]) -> Iterable[int]:
    return (int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match)
