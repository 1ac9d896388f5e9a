"""Runs that are started as fast as they are taken: the rate at saturation, and what each leaves behind."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

import psycopg
from psycopg import sql
from temporalio.client import Client

from bench import celery_stage, sides, stage, turns
from bench.processes import Meter
from bench.report import Figure, compared
from bench.sides import STARTS_AT_ONCE, Side
from bench.sizes import SIZES
from bench.stage import Stage
from bench.turns import Taken
from scheduler_project import embedded

NAME: Final = f"steady flow of {SIZES.flow} runs, {STARTS_AT_ONCE} starts at a time"
ABOUT: Final = f"""
Runs are started by hand, {STARTS_AT_ONCE} starts at a time and as fast as each side takes them; the rate counts from
the first request to the last call, and lateness from a run's own request to its call. Celery, which is faster, gets
three times as many, so its lateness is not held against that of the others. Ours have their rows first, by one
statement for all. The sides take turns, {SIZES.rounds} each. Growth is what a side's own stores hold more afterwards:
its database, without PostgreSQL's write-ahead log and Redis' append-only file, and the SQLite file of Temporal's
development server. Statements are those that the worker sends, counted in PostgreSQL's log in a flow
of their own, since such a log takes time. Events are those of Temporal's history. Processor time is without that of
whoever starts the runs.
{sides.WHAT_EACH_DOES}"""
# What a fast side takes to be at it for some seconds, too.
TIMES_AS_MANY: Final = {sides.CELERY: 3}
COUNTED_RUNS: Final = SIZES.flow // 4
EXAMINED: Final = 20
DATABASES: Final = {sides.OURS: embedded.DATABASE_NAME, sides.CELERY: celery_stage.DATABASE}
CONNECTION_NAMES: Final = {
    sides.OURS: stage.WORKER_CONNECTION_NAME,
    sides.CELERY: celery_stage.WORKER_CONNECTION_NAME,
}


def measure(built: Stage, all_sides: Mapping[str, Side]) -> list[Figure]:
    """Each side's flows in turns."""
    taken: list[tuple[str, Taken]] = []
    growth: dict[str, list[float]] = {name: [] for name in all_sides}
    for number in range(SIZES.rounds):
        order = list(all_sides) if number % 2 == 0 else list(all_sides)[::-1]
        for name in order:
            held, flow = _flow(built, all_sides[name], SIZES.flow * TIMES_AS_MANY.get(name, 1))
            taken.append((name, flow))
            growth[name].append(held)
    statements = _statements(built, all_sides)
    events = asyncio.run(_events())
    found = turns.figures(NAME, turns.by_side(taken))
    found += compared(NAME, "growth of the databases per run", "bytes", growth, {})
    found += compared(NAME, "events of history per run", "events", events, {})
    return [*found, *statements]


def _flow(built: Stage, side: Side, count: int) -> tuple[float, Taken]:
    """Bytes of growth per run, and the rest."""
    side.prepare_flow(count)
    before = _bytes_held(built, side.name)
    meter = Meter(side.pids())
    meter.start()
    late, rate = turns.let_flow(built.sink_port, side)
    turns.settle()
    taken = Taken(late, rate, meter.stop())
    turns.say_taken("flow", side.name, taken)
    return (_bytes_held(built, side.name) - before) / count, taken


def _bytes_held(built: Stage, side: str) -> float:
    """What the stores that a side's runs are written to hold."""
    held = 0.0
    if side in DATABASES:
        with psycopg.connect(built.database_url) as connection:
            row = connection.execute("SELECT pg_database_size(%s)", [DATABASES[side]]).fetchone()
        assert row is not None
        held += float(row[0])
    if side in sides.WORKFLOW_TYPES:
        held += _engine_bytes(built)
    return held


def _engine_bytes(built: Stage) -> float:
    """Free pages inside the file do not count."""
    with closing(sqlite3.connect(f"file:{built.engine.file}?mode=ro", uri=True)) as file:
        (pages,), (free,), (size,) = (
            file.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "freelist_count", "page_size")
        )
    return float((pages - free) * size)


def _statements(built: Stage, all_sides: Mapping[str, Side]) -> list[Figure]:
    """The worker's statements per run; bare Temporal sends none."""
    _log_statements(built, "all")
    counted: dict[str, float] = {}
    for name, connection_name in CONNECTION_NAMES.items():
        if name in all_sides:
            before = built.statements_of(connection_name)
            _flow(built, all_sides[name], COUNTED_RUNS)
            counted[name] = (built.statements_of(connection_name) - before) / COUNTED_RUNS
    _log_statements(built, "none")
    ours, celery = counted[sides.OURS], counted.get(sides.CELERY)
    beside = sides.CELERY if celery is not None else ""
    return [Figure(NAME, "statements of the worker per run", ours, celery, "SQL", "", beside=beside)]


def _log_statements(built: Stage, which: str) -> None:
    with psycopg.connect(built.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER SYSTEM SET log_statement = {}").format(sql.Literal(which)))
        connection.execute("SELECT pg_reload_conf()")
    turns.settle()  # each session takes the change over when it is next idle


async def _events() -> dict[str, Sequence[float]]:
    """How long the histories of some runs are; Celery has none."""
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    found: dict[str, Sequence[float]] = {}
    for side, workflow_type in sides.WORKFLOW_TYPES.items():
        query = f"WorkflowType = '{workflow_type}' AND ExecutionStatus = 'Completed'"
        runs = [run async for run in client.list_workflows(query, limit=EXAMINED)]
        found[side] = [float(run.history_length) for run in runs]
    return found
