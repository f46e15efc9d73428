"""One run of a bounded query, under its conditions."""

from __future__ import annotations

from unistream.errors import JobFailed
from unistream.graph import Vertex, WholeQuery
from unistream.io.base import Cancelled, LazyWrite, Token
from unistream.one_query import Unmet
from unistream.runtime.task import failure


def run_query(vertex: Vertex, payload: WholeQuery, write: LazyWrite) -> Token | None:
    """What commits its rows. Raises `Unmet`, `Cancelled`, or what failed as an error of this vertex."""
    conditions = payload.conditions
    try:
        conditions.begin()
        token = write.run()
        conditions.end()
        return token
    except (Unmet, Cancelled):
        raise
    except Exception as error:
        cause = conditions.failed(error)
        if cause is not error:
            raise cause from error
        if isinstance(error, JobFailed):
            raise
        raise failure(vertex, error) from error
    finally:
        conditions.over = True
