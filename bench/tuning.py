"""What makes runs and calls cheaper, each with and without it: the costs that profiles showed to be the largest."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench import control_plane, processes, sides, stage, turns
from bench.processes import Managed, Meter
from bench.report import Figure, compared
from bench.sizes import SIZES
from bench.stage import Stage

AS_IT_IS: Final = "as it is"
RUN_PATH: Final = "run path"
CONTROL_PATH: Final = "control path"
# No other program: a run's workflow is told how to make its first attempt.
LOCAL_FIRST: Final = "a local first attempt"
NO_SANDBOX: Final = "workflows in no sandbox"
WORKERS_WITHOUT: Final = {
    NO_SANDBOX: "no-sandbox",
    "prepared statements": "prepared-statements",
    "sniffio": "sniffio",
}
WEB_WITHOUT: Final = {"callers first": "patience", "a pool of connections": "pool"}
ABOUT: Final = f"""
Each is taken away in turn, {SIZES.rounds} times, beside the product as it is; ratios below one, of what is to be low,
are what it saves.

- **A local first attempt**: the workflow makes it itself and the engine has half the steps; without it, it is a regular
  activity.
- **Workflows in no sandbox**: the worker does not import their modules anew for each run, as the SDK does by default to
  find what is not deterministic; here the import rules and the stored histories do.
- **Prepared statements**: PostgreSQL plans the two statements of a run once for each connection and not once a run.
- **sniffio**: the HTTP client asks this package which event loop it runs on. Where it is not installed, four imports a
  call search every directory for it.
- **Callers first**: mirrors are pushed while no caller waits for an answer; without it, at once.
- **A pool of connections**: without it, each request connects to PostgreSQL anew.

Runs are those of a steady flow of {SIZES.flow}; calls are creates by {control_plane.CALLERS} callers that pause for
nothing.
"""


def run() -> list[Figure]:
    """Measure."""
    sys.setswitchinterval(0.0002)
    with stage.built(call_seconds=0, log_statements=False) as built:
        run_path = list(_run_path(built))
        built.worker.start()
        return [*run_path, *_control_path()]


def _run_path(built: Stage) -> Iterator[Figure]:
    stage.hold_heavy_passes()
    variants = _around_as_it_is({LOCAL_FIRST: "", **WORKERS_WITHOUT})
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    built.worker.stop()
    for number in range(SIZES.rounds):
        for name in list(variants) if number % 2 == 0 else reversed(variants):
            with _worker(variants[name]) as worker:
                ours = sides.Ours(built, begins_locally=name != LOCAL_FIRST)
                turns.flow_rate(built.sink_port, ours, turns.WARMING_RUNS)
                meter = Meter(ours.pids() | {"worker": worker.pid})
                meter.start()
                rates[name].append(turns.flow_rate(built.sink_port, ours, SIZES.flow))
                for process, usage in meter.stop().items():
                    costs[process][name].append(usage.cpu_seconds * 1000 / SIZES.flow)
            turns.say(f"without {name}: {rates[name][-1]:.1f} runs/s")
    yield from _beside(RUN_PATH, "runs per second", "runs/s", rates)
    for process, of in costs.items():
        yield from _beside(RUN_PATH, f"CPU per run, {process}", "ms", of)


@contextlib.contextmanager
def _worker(without: str) -> Iterator[Managed]:
    program = ["-m", "bench.untuned", without, "worker"] if without else ["-m", "worker"]
    with processes.running([sys.executable, *program], PGAPPNAME=stage.WORKER_CONNECTION_NAME) as managed:
        yield managed


def _control_path() -> Iterator[Figure]:
    installs = [stage.seed_schedules(1)[0][1] for _ in range(control_plane.CALLERS)]
    p50s: dict[str, list[float]] = defaultdict(list)
    p95s: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    variants = _around_as_it_is(WEB_WITHOUT)
    for number in range(SIZES.rounds):
        for name in list(variants) if number % 2 == 0 else reversed(variants):
            with stage.web(without=variants[name], **control_plane.ENVIRONMENT) as web:
                taken = control_plane.measure_creates(web.port, installs)
            p50s[name].append(taken.p50)
            p95s[name].append(taken.p95)
            rates[name].append(taken.per_second)
            turns.say(f"without {name}: create p95 {taken.p95:.1f} ms, {taken.per_second:.1f} calls/s")
    yield from _beside(CONTROL_PATH, "create p50", "ms", p50s)
    yield from _beside(CONTROL_PATH, "create p95", "ms", p95s)
    yield from _beside(CONTROL_PATH, "creates per second", "calls/s", rates)


def _around_as_it_is(variants: Mapping[str, str]) -> dict[str, str]:
    """The variants with the product as it is in their middle: a machine that gets slower is in nobody's favour."""
    named = list(variants.items())
    half = len(named) // 2
    return dict([*named[:half], (AS_IT_IS, ""), *named[half:]])


def _beside(scenario: str, what: str, unit: str, of: Mapping[str, Sequence[float]]) -> list[Figure]:
    """As it is beside each variant."""
    without = {f"without {name}": repeats for name, repeats in of.items() if name != AS_IT_IS}
    return compared(scenario, what, unit, {AS_IT_IS: of[AS_IT_IS], **without}, {})
