"""Schedules that are due in the same second: how late each call is, how fast all are done, and what that takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from bench import sides, sink, stage, turns
from bench.processes import Meter
from bench.report import Figure
from bench.sides import Side
from bench.sizes import SIZES
from bench.turns import Taken

ABOUT: Final = f"""
So many schedules are due in one second; all sides call the same sink, which answers at once and stamps each arrival.
Lateness counts from the second to the arrival. The sides take turns, {SIZES.rounds} each, and the figures are medians
(lowest-highest). Processor time counts from two seconds before the instant until every run is recorded.
{sides.WHAT_EACH_DOES}"""
# What one side needs for a round, in seconds: less than thirty runs a second has been seen of none.
SPACING: Final = {300: 20, 1000: 30}
LONG_SPACING: Final = 60
ARMING_SECONDS: Final = 8


def run() -> list[Figure]:
    """Measure each size."""
    found: list[Figure] = []
    with (
        stage.built(call_seconds=0, log_statements=False) as built,
        turns.all_sides(built) as all_sides,
    ):
        for count in SIZES.bursts:
            found += _measure(built.sink_port, all_sides, count)
    return found


def _measure(port: int, all_sides: dict[str, Side], count: int) -> list[Figure]:
    spacing = next((seconds for size, seconds in SPACING.items() if count <= size), LONG_SPACING)
    plan = turns.timetable(list(all_sides), rounds=SIZES.rounds, spacing_seconds=spacing)
    # Making a schedule takes the engine some ten milliseconds.
    first = turns.next_minute(lead_seconds=count * 0.03 + ARMING_SECONDS)
    moments = {name: [first + timedelta(seconds=at) for side, at in plan if side == name] for name in all_sides}
    for name, side in all_sides.items():
        side.prepare(count, moments[name])
    taken = [(name, _burst(port, all_sides[name], first + timedelta(seconds=at), count)) for name, at in plan]
    for side in all_sides.values():
        side.clear()
    return turns.figures(f"burst of {count} schedules due in one second", turns.by_side(taken))


def _burst(port: int, side: Side, due: datetime, count: int) -> Taken:
    turns.wait_until(due - timedelta(seconds=ARMING_SECONDS))
    side.arm(due)
    turns.wait_until(due - timedelta(seconds=2))
    sink.read_arrivals(port)
    meter = Meter(side.pids())
    meter.start()
    turns.wait_until(due)
    arrivals = turns.collect(port, side.path, count)
    side.wait_for_records(due)
    turns.settle()
    usage = meter.stop()
    late = _lateness(arrivals, due)
    taken = Taken(late, len(late) / late[-1], usage)
    turns.say_taken(f"burst of {count}", side.name, taken)
    return taken


def _lateness(arrivals: Sequence[dict[str, float]], due: datetime) -> list[float]:
    return sorted(arrival["at"] - due.timestamp() for arrival in arrivals)
