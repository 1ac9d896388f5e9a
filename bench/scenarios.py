"""The scenarios, and how one is run so that whatever happens in it is its own affair."""

from __future__ import annotations

import importlib
import signal
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from types import FrameType
from typing import Final

from bench.report import Figure, Outcome

# To add a scenario: a module with `run() -> list[Figure]` and `ABOUT`, the text above its tables, and a line here.
SCENARIOS: Final = {
    "cron meaning": "bench.cron_meaning",
    "burst": "bench.burst",
    "steady flow": "bench.flow",
    "kill": "bench.kill",
    "control plane": "bench.control_plane",
    "growth": "bench.growth",
    "million runs": "bench.million_runs",
    "waiting calls": "bench.waiting_calls",
}
# One that hangs must not keep the others' figures from being written.
MAX_SECONDS: Final = 900.0
WIND_UP_SECONDS: Final = 60.0


def run(name: str) -> Outcome:
    """One scenario's outcome: its figures, or why there are none."""
    about = str(importlib.import_module(SCENARIOS[name]).ABOUT)
    began = time.monotonic()
    figures: list[Figure] = []
    failure = ""
    # A process of its own for each: Django is set up once in a process, and every scenario has its own database.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            figures = process.submit(_measure, name).result(MAX_SECONDS)
        except TimeoutError:
            failure = f"it was not done after {MAX_SECONDS:g} s"
            _wind_up()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on and the exit status tells
            first_line = str(error).partition("\n")[0]
            failure = f"it ended with {type(error).__name__}: {first_line}"
            traceback.print_exc()
    return Outcome(name, about, time.monotonic() - began, figures, failure)


def _measure(name: str) -> list[Figure]:
    signal.signal(signal.SIGTERM, _raise_exit)
    figures: list[Figure] = importlib.import_module(SCENARIOS[name]).run()
    return figures


def _raise_exit(_number: int, _frame: FrameType | None) -> None:
    """End as an exception does, so that the processes which a scenario has started are ended, too."""
    raise SystemExit(1)


def _wind_up() -> None:
    for child in active_children():
        child.terminate()
        child.join(WIND_UP_SECONDS)
        if child.is_alive():
            child.kill()
