"""The scenarios, and how one is run so that whatever happens in it is its own affair."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final, TypeAlias

import psutil

from bench.report import Figure, Outcome

# What a scenario's process says of one after the other: its figures, or else why there are none.
Said: TypeAlias = tuple[list[Figure], str]

# To add a scenario: a module with `run() -> list[Figure]`, or `measure` where it shares its stage with others, and with
# `ABOUT`, the text above its tables; and a line here.
SCENARIOS: Final = {
    "cron meaning": "bench.cron_meaning",
    "steady flow": "bench.flow",
    "burst": "bench.burst",
    "kill": "bench.kill",
    "control plane": "bench.control_plane",
    "upgrades": "bench.upgrades",
    "growth": "bench.growth",
    "million runs": "bench.million_runs",
    "waiting calls": "bench.waiting_calls",
}
# What a whole call leaves out: each of them writes a page of its own.
ON_DEMAND: Final = {"tuning": "bench.tuning", "growth to 10,000": "bench.far_growth"}
# These share a stage where they are wanted together, in this order: the last leaves nothing as it was.
TOGETHER: Final = "bench.deliveries"
SHARING: Final = ("steady flow", "burst", "kill")
# One that hangs must not keep the others' figures from being written.
MAX_SECONDS: Final = 2700.0
# Each of a dozen processes may take a while to end.
WIND_UP_SECONDS: Final = 180.0
# By which a scenario's processes are known: all that it starts inherit it.
MARK_VARIABLE: Final = "BENCH_SCENARIO"


def run(names: Sequence[str]) -> Iterator[Outcome]:
    """The outcomes of scenarios that share a stage, each once it is there: its figures, or why there are none.

    Those behind one that failed begin anew, on a stage that it has not touched.
    """
    done = 0
    while done < len(names):
        for outcome in _run_until_failure(names[done:]):
            yield outcome
            done += 1


def _run_until_failure(names: Sequence[str]) -> Iterator[Outcome]:
    began = time.monotonic()
    # A process of its own: Django is set up once in a process, and everything has a database of its own.
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    mark = uuid.uuid4().hex
    process = context.Process(target=_measure, args=(list(names), _module(names[0]), mark, sending))
    process.start()
    sending.close()
    for name in names:
        figures, failure = _received(receiving)
        yield Outcome(name, _about(name), time.monotonic() - began, figures, failure, tuple(names))
        began = time.monotonic()
        if failure:
            process.terminate()
            break
    process.join(WIND_UP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    _kill_marked(mark)


def _kill_marked(mark: str) -> None:
    """Kill all that a scenario has started, or the next would be measured beside it.

    Its children, and what is no child of anybody's any more, as a database server that was started by a command.
    """
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if one.environ().get(MARK_VARIABLE) == mark:
                one.kill()


def batches(wanted: Iterable[str], *, apart: bool) -> list[list[str]]:
    """The scenarios, those that can be run together as one batch in their order, unless they are to be apart."""
    names = list(wanted)
    if apart:
        return [[name] for name in names]
    sharing: list[str] = [name for name in SHARING if name in names]
    found = [[name] for name in names if name not in sharing]
    # Where the first of them was named.
    place = next((number for number, name in enumerate(names) if name in sharing), 0)
    return [*found[:place], sharing, *found[place:]] if sharing else found


def _about(name: str) -> str:
    return str(importlib.import_module(_module(name)).ABOUT)


def _module(name: str) -> str:
    return (SCENARIOS | ON_DEMAND)[name]


def _received(receiving: Connection) -> Said:
    if not receiving.poll(MAX_SECONDS):
        return [], f"it was not done after {MAX_SECONDS:g} s"
    try:
        received: Said = receiving.recv()
    except EOFError:
        return [], "its process ended without a word"
    return received


def _measure(names: list[str], module: str, mark: str, sending: Connection) -> None:
    signal.signal(signal.SIGTERM, _raise_exit)
    os.environ[MARK_VARIABLE] = mark
    try:
        if names[0] in SHARING:
            for figures in importlib.import_module(TOGETHER).run(names):
                sending.send((figures, ""))
        else:
            sending.send((importlib.import_module(module).run(), ""))
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on and the exit status tells
        traceback.print_exc()
        first_line = str(error).partition("\n")[0]
        sending.send(([], f"it ended with {type(error).__name__}: {first_line}"))


def _raise_exit(_number: int, _frame: FrameType | None) -> None:
    """End as an exception does, so that the processes which a scenario has started are ended, too."""
    raise SystemExit(1)
