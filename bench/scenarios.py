"""The scenarios, and how one is run so that whatever happens in it is its own affair."""

from __future__ import annotations

import importlib
import signal
import time
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final

import psutil

from bench.report import Figure, Outcome

# To add a scenario: a module with `run() -> list[Figure]` and `ABOUT`, the text above its tables, and a line here.
SCENARIOS: Final = {
    "cron meaning": "bench.cron_meaning",
    "burst": "bench.burst",
    "steady flow": "bench.flow",
    "kill": "bench.kill",
    "control plane": "bench.control_plane",
    "upgrades": "bench.upgrades",
    "growth": "bench.growth",
    "million runs": "bench.million_runs",
    "waiting calls": "bench.waiting_calls",
}
# What a whole call leaves out: it says how we came to be as fast as we are, and writes a page of its own.
ON_DEMAND: Final = {"tuning": "bench.tuning"}
# One that hangs must not keep the others' figures from being written.
MAX_SECONDS: Final = 900.0
WIND_UP_SECONDS: Final = 60.0


def run(name: str) -> Outcome:
    """One scenario's outcome: its figures, or why there are none."""
    module = (SCENARIOS | ON_DEMAND)[name]
    about = str(importlib.import_module(module).ABOUT)
    began = time.monotonic()
    # A process of its own for each: Django is set up once in a process, and every scenario has its own database.
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(module, sending))
    process.start()
    sending.close()
    figures, failure = _received(receiving)
    if failure:
        process.terminate()
    process.join(WIND_UP_SECONDS)
    if process.is_alive():
        # With all that it has started, or the next would be measured beside it.
        for one in psutil.Process(process.pid).children(recursive=True):
            one.kill()
        process.kill()
    return Outcome(name, about, time.monotonic() - began, figures, failure)


def _received(receiving: Connection) -> tuple[list[Figure], str]:
    if not receiving.poll(MAX_SECONDS):
        return [], f"it was not done after {MAX_SECONDS:g} s"
    try:
        received: tuple[list[Figure], str] = receiving.recv()
    except EOFError:
        return [], "its process ended without a word"
    return received


def _measure(module: str, sending: Connection) -> None:
    signal.signal(signal.SIGTERM, _raise_exit)
    try:
        sending.send((importlib.import_module(module).run(), ""))
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on and the exit status tells
        traceback.print_exc()
        first_line = str(error).partition("\n")[0]
        sending.send(([], f"it ended with {type(error).__name__}: {first_line}"))


def _raise_exit(_number: int, _frame: FrameType | None) -> None:
    """End as an exception does, so that the processes which a scenario has started are ended, too."""
    raise SystemExit(1)
