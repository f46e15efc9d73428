"""One query as a Bytewax flow: two processes of one worker each, state saved every ten seconds."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.compare.engines import bytewax_flows as flows
from benchmarks.compare.protocol import Answer, Request, Unable, measured, peak_mb, serve, write_rows

PROCESSES = 2
BATCH = 1000
WAIT = timedelta(seconds=4)
WINDOWED = ("q11", "q12", "tumbling")


def build(request: Request, process: int) -> Any:
    """The flow of a query; rows as tuples, those of updated results with their keys first."""
    import bytewax.operators as op
    from bytewax.connectors.files import DirSource
    from bytewax.dataflow import Dataflow

    flow = Dataflow(request.query)
    query = request.query

    def read(table: str, turned: Callable[[list[str]], Any]) -> Any:
        # Windows of a key would close while the other file still holds rows for them: one file for those.
        layout = "whole" if query in WINDOWED else "lanes"
        source = DirSource(request.files(table, layout), "*.csv", batch_size=BATCH)
        return op.flat_map_batch(f"turn-{table}", op.input(table, flow, source), turned)

    if query in flows.STATELESS:
        rows = read("bid", flows.STATELESS[query][0])
    elif query in flows.UPDATED:
        keyed, step, _, _ = flows.UPDATED[query]
        rows = op.stateful_flat_map("step", read("counts" if query == "count" else "bid", keyed), step)
    elif query in flows.JOINS:
        sides = [read(table, turned) for table, turned in flows.JOINS[query][0].items()]
        rows = op.map("value", op.stateful_flat_map("join", op.merge("sides", *sides), flows.join), _value)
    else:
        rows = windows(query, read)
    op.output("out", rows, sink(request, process))
    return flow


def _value(keyed: tuple[str, Any]) -> Any:
    return keyed[1]


def windows(query: str, read: Callable[..., Any]) -> Any:
    """Results of windows, when they close."""
    import bytewax.operators as op
    import bytewax.operators.windowing as win

    if query == "tumbling":
        clock: Any = win.EventClock(lambda value: value[0], WAIT, to_system_utc=_never)
        windower: Any = win.TumblingWindower(flows.TEN, flows.START)
        out = win.fold_window(
            "fold",
            read("readings", flows.keyed_reading),
            clock,
            windower,
            lambda: (0, 0),
            _add,
            _merge,
            ordered=False,
        )
        return op.map("row", out.down, _tumbled)
    if query == "q12":
        came = win.SystemClock()
        windower = win.TumblingWindower(flows.TEN, flows.START)
        out = win.fold_window(
            "fold",
            read("bid", flows.keyed_time),
            came,
            windower,
            int,
            lambda n, _: n + 1,
            int.__add__,
            ordered=False,
        )
        return op.map("row", out.down, lambda found: (int(found[0]), found[1][0], found[1][1]))
    clock = win.EventClock(lambda value: value, WAIT, to_system_utc=_never)
    windower = win.SessionWindower(flows.TEN)
    out = win.fold_window(
        "fold",
        read("bid", flows.keyed_time),
        clock,
        windower,
        lambda: None,
        _extend,
        _join_sessions,
        ordered=False,
    )
    return op.map("row", out.down, _session)


def _never(time: datetime) -> None:
    """No moment of the clock: windows of a past that is read again would else be looked at all the time."""


def _add(state: tuple[int, int], value: tuple[datetime, int]) -> tuple[int, int]:
    return state[0] + 1, state[1] + value[1]


def _merge(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    return left[0] + right[0], left[1] + right[1]


def _tumbled(found: Any) -> Any:
    key, (number, (n, total)) = found
    return int(key), (flows.START + number * flows.TEN).replace(tzinfo=None), n, total


def _extend(state: Any, time: datetime) -> Any:
    return (time, time, 1) if state is None else (min(state[0], time), max(state[1], time), state[2] + 1)


def _join_sessions(left: Any, right: Any) -> Any:
    if left is None or right is None:
        return left or right
    return min(left[0], right[0]), max(left[1], right[1]), left[2] + right[2]


def _session(found: Any) -> Any:
    key, (_, (first, last, bids)) = found
    return int(key), first.replace(tzinfo=None), (last + flows.TEN).replace(tzinfo=None), bids


WINDOW_NAMES = {
    "tumbling": ("key", "window_start", "n", "total"),
    "q12": ("bidder", "window", "bids"),
    "q11": ("bidder", "window_start", "window_end", "bids"),
}


def sink(request: Request, process: int) -> Any:
    """Nothing, or lines of JSON in a file of each process."""
    from bytewax.outputs import DynamicSink, StatelessSinkPartition

    class Discard(StatelessSinkPartition):  # type: ignore[misc]
        def write_batch(self, items: list[Any]) -> None:
            pass

    class Keep(StatelessSinkPartition):  # type: ignore[misc]
        def write_batch(self, items: list[Any]) -> None:
            with Path(f"{request.scratch}/{request.query}-{process}.json").open("a") as file:
                for item in items:
                    file.write(json.dumps(item, default=lambda time: time.isoformat()) + "\n")

    class Out(DynamicSink):  # type: ignore[misc]
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Any:
            return Keep() if request.rows else Discard()

    return Out()


def work(request: Request, process: int, addresses: list[str]) -> None:
    """One process of the cluster."""
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import cluster_main

    kept = RecoveryConfig(Path(request.scratch, f"recovery-{request.query}"))
    cluster_main(build(request, process), addresses, process, epoch_interval=flows.TEN, recovery_config=kept)
    peak = peak_mb(os.getpid(), client=False)
    Path(request.scratch, f"{process}.peak").write_text(str(peak))


def execute(request: Request) -> None:
    """Run the flow until all files are read."""
    from bytewax.recovery import init_db_dir

    kept = Path(request.scratch, f"recovery-{request.query}")
    kept.mkdir()
    init_db_dir(kept, PROCESSES)
    ports = []
    for _ in range(PROCESSES):
        probe = socket.create_server(("127.0.0.1", 0))
        ports.append(probe)
    addresses = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in ports]
    for probe in ports:
        probe.close()
    context = multiprocessing.get_context("fork")
    others = [
        context.Process(target=work, args=(request, process, addresses)) for process in range(PROCESSES)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join()
        if other.exitcode:
            raise RuntimeError(f"a worker ended with {other.exitcode}")


def collect(request: Request) -> None:
    """Write the rows: of those with equal keys the last one."""
    execute(request)
    rows: list[Any] = []
    for process in range(PROCESSES):
        file = Path(f"{request.scratch}/{request.query}-{process}.json")
        if file.exists():
            rows += [json.loads(line) for line in file.read_text().splitlines()]
    query = request.query
    if query in flows.UPDATED:
        _, _, keys, names = flows.UPDATED[query]
        last = dict(rows)
        found = [
            [*(int(part) if part.isdigit() else part for part in key.split()), *last[key]] for key in last
        ]
        return write_rows(str(request.rows), (*keys, *names), found)
    if query in flows.STATELESS:
        names = flows.STATELESS[query][1]
    else:
        names = flows.JOINS[query][1] if query in flows.JOINS else WINDOW_NAMES[query]
    return write_rows(str(request.rows), names, rows)


def run(request: Request, answer: Answer) -> None:
    """Rows when they are asked for, else times."""
    if request.query in flows.UNABLE:
        raise Unable(flows.UNABLE[request.query])
    import bytewax.testing  # noqa: F401  imported before the processes part

    answer.version = version("bytewax")
    if request.rows:
        return collect(request)
    with measured(answer):
        execute(request)
    answer.peak_mb = sum(float(file.read_text()) for file in Path(request.scratch).glob("*.peak"))
    return None


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    serve(run)
