"""How sides take turns: when each is due, what arrived of its calls, and the figures of all repeats."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bench import celery_stage, processes, sides, sink, stage
from bench.processes import Usage
from bench.report import Figure, alone, compared, percentile
from bench.sides import Side
from bench.sizes import SIZES
from bench.stage import Stage

BARE_WORKER: Final = [sys.executable, "-m", "bench.bare"]
PATIENCE_SECONDS: Final = 120
WARMING_RUNS: Final = SIZES.warming_runs
# How long before an instant a side is armed for it.
ARMING_SECONDS: Final = 8
# How fast the engine brings runs to the sink is tried out with so many.
TRIED_RUNS: Final = SIZES.flow // 2
# Longer than from where a turn is left out until its schedules are due.
QUIET_SECONDS: Final = 10
LOWEST_RATE: Final = 0.85
HIGHEST_LATENESS: Final = 1.25


@dataclass(frozen=True, slots=True)
class Taken:
    """One side of one round: lateness of each call in seconds, ascending, runs per second, and what it used."""

    lateness: list[float]
    rate: float
    usage: dict[str, Usage] = field(default_factory=dict)

    def late(self, percent: float) -> float:
        """The lateness that so many percent of the calls stay at or below."""
        return percentile(self.lateness, percent)

    def cpu_ms(self, process: str) -> float:
        """Milliseconds of processor time per run."""
        return self.usage[process].cpu_seconds * 1000 / len(self.lateness)


@contextlib.contextmanager
def all_sides(built: Stage) -> Iterator[dict[str, Side]]:
    """The sides that can run here, by name; Celery's absence is said and no obstacle."""
    stage.hold_heavy_passes()
    with contextlib.ExitStack() as stack:
        bare_worker = stack.enter_context(processes.running(BARE_WORKER))
        found: dict[str, Side] = {sides.OURS: sides.Ours(built)}
        found |= {name: sides.Bare(built.engine, bare_worker, name=name) for name in (sides.BARE, sides.BARE_LOCAL)}
        try:
            celery = stack.enter_context(celery_stage.built(built))
        except celery_stage.PartMissing as reason:
            say(f"Celery is left out: {reason}")
        else:
            found[sides.CELERY] = sides.CelerySide(built, celery)
        for side in found.values():
            # Everything has been done once, and connections, caches and pollers are there, when its first turn begins.
            flow_rate(built.sink_port, side, WARMING_RUNS)
        yield found


def flow_rate(port: int, side: Side, count: int) -> float:
    """Let so many runs flow; how many a second came, from the first start to the last call. All are over at the end."""
    side.prepare_flow(count)
    return let_flow(port, side)[1]


def let_flow(port: int, side: Side) -> tuple[list[float], float]:
    """Let the prepared runs flow to their ends; each one's lateness in seconds, ascending, and how many a second."""
    sink.read_arrivals(port)
    asked = side.flow()
    arrivals = collect(port, side.path, asked.keys())
    side.wait_for_flow()
    last = max(float(arrival["at"]) for arrival in arrivals)
    late = sorted(arrival["at"] - asked[arrival["id"]] for arrival in arrivals)
    return late, len(late) / (last - min(asked.values()))


def missing_note(scenario: str) -> list[Figure]:
    """A row that says why Celery's are not there, where they are not."""
    reason = celery_stage.missing_part()
    return [Figure(scenario, "Celery was left out", 0, None, "runs", reason)] if reason else []


def preparing_seconds(count: int, rate: float) -> float:
    """How long so many schedules of each side take to be made, where the engine brings so many runs a second."""
    return 3.0 + count * 2.6 / rate


def next_minute(*, lead_seconds: float) -> datetime:
    """The next full minute that leaves so much time before it."""
    moment = datetime.now(UTC) + timedelta(seconds=lead_seconds)
    begun = moment.replace(second=0, microsecond=0)
    return begun if begun == moment else begun + timedelta(minutes=1)


def wait_until(moment: datetime) -> None:
    """Return at an instant."""
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def wait_until_quiet(port: int) -> None:
    """Return once no call has come for a while: also a turn that was left out has schedules that are due."""
    heard = time.monotonic()
    while time.monotonic() < heard + QUIET_SECONDS:
        if sink.read_arrivals(port):
            heard = time.monotonic()
        settle()


def check_prepared(due: datetime) -> None:
    """Raise RuntimeError where it is too late to arm anybody for an instant."""
    if datetime.now(UTC) > due - timedelta(seconds=ARMING_SECONDS):
        raise RuntimeError("the schedules were not there in time; this machine is too slow or too busy")


def collect(port: int, path: str, expected: Collection[str]) -> list[dict[str, Any]]:
    """The first call of each of these ids at a path; raises RuntimeError where not all of them come."""
    first: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(first) < len(expected) and time.monotonic() < deadline:
        for arrival in sink.read_arrivals(port):
            if arrival["path"] == path and arrival["id"] in expected:
                first.setdefault(arrival["id"], arrival)
        time.sleep(0.1)
    if len(first) < len(expected):
        raise RuntimeError(f"only {len(first)} of {len(expected)} calls arrived at {path}")
    return list(first.values())


def figures(scenario: str, taken: dict[str, list[Taken]]) -> list[Figure]:
    """Everything about a scenario's repeats, ours beside each other side."""
    at_least, at_most = f"at least {LOWEST_RATE} is wanted", f"at most {HIGHEST_LATENESS} is wanted"

    def of(read: Any) -> dict[str, Sequence[float]]:
        return {side: [read(one) for one in repeats] for side, repeats in taken.items()}

    wanted = dict.fromkeys((sides.BARE, sides.BARE_LOCAL), at_least)
    found = compared(scenario, "runs per second", "runs/s", of(lambda one: one.rate), wanted)
    # More runs at once wait for each other for longer.
    as_many = {
        side for side, repeats in taken.items() if len(repeats[0].lateness) == len(taken[sides.OURS][0].lateness)
    }
    for name, percent in (("p50", 50.0), ("p95", 95.0), ("max", 100.0)):
        wanted = dict.fromkeys((sides.BARE, sides.BARE_LOCAL), at_most) if name == "p95" else {}
        latenesses = of(lambda one, percent=percent: one.late(percent))
        latenesses = {side: repeats for side, repeats in latenesses.items() if side in as_many}
        found += compared(scenario, f"start lateness {name}", "s", latenesses, wanted)
    found += compared(
        scenario,
        "CPU per run, all processes",
        "ms",
        of(lambda one: sum(one.cpu_ms(process) for process in one.usage)),
        {},
    )
    found += compared(scenario, "CPU per run, worker", "ms", of(lambda one: one.cpu_ms("worker")), {})
    found += compared(scenario, "peak memory, worker (PSS)", "MB", of(lambda one: one.usage["worker"].peak_mb), {})
    for side, repeats in taken.items():
        for process in repeats[0].usage:
            if process != "worker":
                name = f"{side}: {process}"
                cpu, memory = [one.cpu_ms(process) for one in repeats], [one.usage[process].peak_mb for one in repeats]
                found.append(alone(scenario, f"CPU per run, {name}", "ms", cpu))
                found.append(alone(scenario, f"peak memory, {name} (PSS)", "MB", memory))
    return found + missing_note(scenario)


def say(text: str) -> None:
    """Tell whoever watches."""
    print(text, file=sys.stderr, flush=True)


def say_taken(title: str, side: str, taken: Taken) -> None:
    """One line a turn."""
    cpu = ", ".join(f"{name} {taken.cpu_ms(name):.1f}" for name in taken.usage)
    say(
        f"{title}, {side}: {taken.rate:.1f} runs/s, lateness p50 {taken.late(50):.2f} s, p95 {taken.late(95):.2f} s; "
        f"CPU ms per run: {cpu}"
    )


def by_side(turns: Sequence[tuple[str, Taken]]) -> dict[str, list[Taken]]:
    """The repeats of each side, ours first."""
    found: dict[str, list[Taken]] = defaultdict(list)
    for side, taken in turns:
        found[side].append(taken)
    return {side: found[side] for side in sides.IN_FLOWS if side in found}


def settle() -> None:
    """Leave time for what the last call set off, so that it is counted with it."""
    time.sleep(1.0)
