"""Schedules that are due in the same second: how late each call is, how fast all are done, and what that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from bench import sides, sink, stage, turns
from bench.processes import Meter
from bench.report import Figure, percentile
from bench.sides import Side
from bench.sizes import SIZES
from bench.turns import Taken

MOST: Final = 95
ABOUT: Final = f"""
So many schedules are due in one second; all sides call the same sink, which answers at once and stamps each arrival.
Lateness counts from the second to the arrival. The sides take turns, {SIZES.rounds} each, and the figures are medians
(lowest-highest). Runs per second count until {MOST} of 100 calls have come: now and then the engine lets a step of its
own run out, on either side, and what waits for it comes ten seconds after the others; "max" has it. Processor time
counts from two seconds before the instant until every run is recorded.
{sides.WHAT_EACH_DOES}"""
# Seconds from a round's begin to each turn. Ours is first, as its cron has no seconds. The engine brings three hundred
# runs to their end in seven seconds, or in fourteen where it lets a step of its own run out, and a thousand in thirty.
OFFSETS: Final = {300: (0, 22, 44), 1000: (0, 40, 80)}
LONG_OFFSETS: Final = (0, 60, 120)
ARMING_SECONDS: Final = 8
# Beat looks for changes each five seconds.
BEAT_SECONDS: Final = 6
# Of both sides on Temporal together, for one schedule of each.
PREPARING_SECONDS: Final = 0.035


@dataclass(frozen=True, slots=True)
class _Plan:
    """The turns of one size."""

    count: int
    all_sides: dict[str, Side]
    turns: list[tuple[str, datetime]]


def run() -> list[Figure]:
    """Measure each size."""
    found: list[Figure] = []
    with (
        stage.built(call_seconds=0, log_statements=False) as built,
        turns.all_sides(built) as all_sides,
    ):
        plans = _prepare(all_sides)
        for plan in plans:
            taken = [(name, _burst(built.sink_port, plan.all_sides[name], due, plan.count)) for name, due in plan.turns]
            for side in plan.all_sides.values():
                side.disarm()
            found += _figures(f"burst of {plan.count} schedules due in one second", taken)
    return found


def _prepare(all_sides: dict[str, Side]) -> list[_Plan]:
    """Make all schedules before the first turn, so that no turn has to wait for its own."""
    first = turns.next_minute(lead_seconds=sum(SIZES.bursts) * PREPARING_SECONDS + ARMING_SECONDS)
    plans, begins = [], first
    for count in SIZES.bursts:
        offsets = next((found for size, found in OFFSETS.items() if count <= size), LONG_OFFSETS)
        table = turns.timetable(list(all_sides), rounds=SIZES.rounds, offsets=offsets)
        plan = _Plan(
            count,
            {name: copy(side) for name, side in all_sides.items()},
            [(name, begins + timedelta(seconds=at)) for name, at in table],
        )
        for name, side in plan.all_sides.items():
            side.prepare(count, [due for other, due in plan.turns if other == name])
        plans.append(plan)
        begins = turns.full_minute(plan.turns[-1][1] + timedelta(seconds=ARMING_SECONDS))
    if datetime.now(UTC) > first - timedelta(seconds=ARMING_SECONDS):
        raise RuntimeError("the schedules were not there in time; this machine is too slow or too busy")
    return plans


def _burst(port: int, side: Side, due: datetime, count: int) -> Taken | None:
    turns.wait_until(due - timedelta(seconds=ARMING_SECONDS))
    if datetime.now(UTC) > due - timedelta(seconds=BEAT_SECONDS):
        turns.say(f"burst of {count}, {side.name}: left out, as the turn before took too long")
        return None
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
    most = percentile(late, MOST)
    taken = Taken(late, len(late) * MOST / 100 / most, usage)
    turns.say_taken(f"burst of {count}", side.name, taken)
    return taken


def _figures(scenario: str, taken: Sequence[tuple[str, Taken | None]]) -> list[Figure]:
    """The figures of the turns that began from rest, and whose did not."""
    found = turns.figures(scenario, turns.by_side([(name, one) for name, one in taken if one is not None]))
    left_out = Counter(name for name, one in taken if one is None)
    why = "the turn before took too long"
    return found + [
        Figure(scenario, f"turns of {name} left out", left_out[name], None, "turns", why) for name in left_out
    ]


def _lateness(arrivals: Sequence[dict[str, float]], due: datetime) -> list[float]:
    return sorted(arrival["at"] - due.timestamp() for arrival in arrivals)
