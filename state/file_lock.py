"""A lock file that is free again once its process has ended, however it ended."""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An advisory lock (`flock`) on a file that stays where it is."""

    def __init__(self, path: Path, *, take_over: bool = False) -> None:
        """Raises `BlockingIOError` when it is held, `OSError` where the file system has no locks."""
        import fcntl

        self._descriptor: int | None = None
        if take_over:
            # The holder keeps its lock on a file that no longer has the name.
            path.unlink(missing_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let others have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def has_no_locks(error: OSError) -> bool:
    """Whether the error says that this file system has no locks, not that one is held."""
    return error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has this name: it may have been taken over in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _release_in_child() -> None:
    # A forked child shares the lock and would keep it after the parent's death.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
