"""Folders of a job that must not come into each other's way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from unistream.errors import InvalidSettings
from unistream.graph import Input, JobGraph, Vertex
from unistream.io.base import Sink


def check_places(graph: JobGraph, checkpoint: object) -> None:
    """Before anything is locked or made: checkpoints lie apart, and nothing goes that is still to be read."""
    kept = _local(checkpoint)
    if kept is not None:
        for vertex in graph:
            for folder in _folders(vertex):
                _check_apart(kept, Path(os.path.realpath(folder)), vertex)
    if checkpoint is not None or not graph.bounded:  # a sink commits before everything was read
        for vertex, path in _lost_before_read(graph):
            raise InvalidSettings(
                f"Sink {vertex.id!r} replaces what the job reads: {path} goes with its first commit",
                vertex.where,
                "write to another folder; a job that ends and has no checkpoint= commits at its end",
            )


def _check_apart(kept: Path, folder: Path, vertex: Vertex) -> None:
    whose = f"of {vertex.kind.value} {vertex.id!r}"
    if kept == folder:
        problem = f"The checkpoint folder is the folder {whose}"
    elif kept.is_relative_to(folder):
        problem = f"The checkpoint folder lies in the folder {whose}"
    elif folder.is_relative_to(kept):
        problem = f"The folder {whose} lies in the checkpoint folder"
    else:
        return
    raise InvalidSettings(f"{problem}: {folder}", vertex.where, f"put it beside it, not into {kept}")


def _folders(vertex: Vertex) -> tuple[str, ...]:
    payload = vertex.payload
    if isinstance(payload, Input):
        return payload.source.folders
    return payload.folders if isinstance(payload, Sink) else ()


def _lost_before_read(graph: JobGraph) -> Iterator[tuple[Vertex, str]]:
    """Sinks, and a file they would remove that a source of the job reads."""
    sources = [vertex.payload.source for vertex in graph if isinstance(vertex.payload, Input)]
    for vertex in graph:
        if isinstance(vertex.payload, Sink) and sources:
            for path in vertex.payload.replaced():
                if any(source.takes(path) for source in sources):
                    yield vertex, path


def _local(checkpoint: object) -> Path | None:
    """Where checkpoints lie on this machine, without links on the way; None when they lie elsewhere."""
    if not isinstance(checkpoint, (str, Path)):
        return None
    if isinstance(checkpoint, str) and "://" in checkpoint:
        parts = urlsplit(checkpoint)
        return Path(os.path.realpath(unquote(parts.path))) if parts.scheme == "file" else None
    return Path(os.path.realpath(checkpoint))
