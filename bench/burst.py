"""Schedules that are due in the same second: how late each call is, how fast all are done, and what that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
(lowest-highest). Ours being due on full minutes, the order within a round is always the same. A turn that cannot begin
from rest, as on a slower machine, is left out and said. Processor time counts from two seconds before the instant until
every run is at its end.
{sides.WHAT_EACH_DOES}"""
# The turns of a round, by the seconds from its begin. Ours are on full minutes, as our cron has no seconds. On two
# cores the engine brings 300 runs to their end in seven seconds and 1,000 in 28.
ROUND: Final = (
    (0, 1000, sides.OURS),
    (33, 1000, sides.CELERY),
    (46, 300, sides.BARE),
    (60, 300, sides.OURS),
    (72, 1000, sides.BARE),
    (112, 300, sides.CELERY),
)
ROUND_SECONDS: Final = 120
# What a turn that could not begin from rest is made up in.
SPARE_ROUNDS: Final = 1
ARMING_SECONDS: Final = 8
# How long before the instant a side must have been left alone. Beat looks for changes each five seconds.
REST_SECONDS: Final = {sides.OURS: 2, sides.BARE: 2, sides.CELERY: 6}
# Of both sides on Temporal together, for one schedule of each.
PREPARING_SECONDS: Final = 0.035


@dataclass(frozen=True, slots=True)
class Turn:
    """One side's turn at one size, so many seconds after the begin of the first round."""

    seconds: int
    count: int
    side: str


@dataclass(slots=True)
class _Burst:
    """What came of one size."""

    taken: dict[str, list[Taken]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def run() -> list[Figure]:
    """Measure each size."""
    with (
        stage.built(call_seconds=0, log_statements=False) as built,
        turns.all_sides(built) as all_sides,
    ):
        rounds = timetable(all_sides)
        prepared, begins = _prepare(all_sides, rounds)
        bursts = {count: _Burst({name: [] for name in all_sides}) for count in SIZES.bursts}
        for number, turns_of_it in enumerate(rounds):
            if number >= SIZES.rounds and not any(burst.left_out for burst in bursts.values()):
                break
            for turn in turns_of_it:
                burst, due = bursts[turn.count], begins + timedelta(seconds=turn.seconds)
                taken = _take(built.sink_port, prepared[turn.count, turn.side], due, turn.count)
                if taken is None:
                    burst.left_out[turn.side] += 1
                else:
                    burst.taken[turn.side].append(taken)
    return [figure for count, burst in bursts.items() for figure in _figures(count, burst)]


def timetable(all_sides: Mapping[str, Side]) -> list[list[Turn]]:
    """The turns of each round, spare ones at the end, of those sides and sizes that there are."""
    sizes = dict(zip(sorted({count for _, count, _ in ROUND}), SIZES.bursts, strict=False))
    return [
        [
            Turn(number * ROUND_SECONDS + at, sizes[size], side)
            for at, size, side in ROUND
            if size in sizes and side in all_sides
        ]
        for number in range(SIZES.rounds + SPARE_ROUNDS)
    ]


def _prepare(all_sides: Mapping[str, Side], rounds: list[list[Turn]]) -> tuple[dict[tuple[int, str], Side], datetime]:
    """Make all schedules before the first turn, so that no turn has to wait for its own; and when it all begins."""
    lead_seconds = sum(SIZES.bursts) * PREPARING_SECONDS + ARMING_SECONDS
    begins = turns.next_minute(lead_seconds=lead_seconds - rounds[0][0].seconds)
    prepared: dict[tuple[int, str], Side] = {}
    for name, side in all_sides.items():
        for count in SIZES.bursts:
            prepared[count, name] = copy(side)
            dues = [
                begins + timedelta(seconds=turn.seconds)
                for turns_of_it in rounds
                for turn in turns_of_it
                if (turn.count, turn.side) == (count, name)
            ]
            prepared[count, name].prepare(count, dues)
    if datetime.now(UTC) > begins + timedelta(seconds=rounds[0][0].seconds - ARMING_SECONDS):
        raise RuntimeError("the schedules were not there in time; this machine is too slow or too busy")
    return prepared, begins


def _take(port: int, side: Side, due: datetime, count: int) -> Taken | None:
    turns.wait_until(due - timedelta(seconds=ARMING_SECONDS))
    if datetime.now(UTC) > due - timedelta(seconds=REST_SECONDS[side.name]):
        turns.say(f"burst of {count}, {side.name}: left out, as the turn before took too long")
        return None
    side.arm(due)
    turns.wait_until(due - timedelta(seconds=2))
    # Also the schedules of a turn that was left out are due at its time.
    if any(arrival["at"] > due.timestamp() - ARMING_SECONDS for arrival in sink.read_arrivals(port)):
        turns.say(f"burst of {count}, {side.name}: left out, as calls of another turn were still coming")
        side.disarm()
        return None
    meter = Meter(side.pids())
    meter.start()
    turns.wait_until(due)
    arrivals = turns.collect(port, side.path, side.expected(due))
    side.wait_until_done(due)
    turns.settle()
    usage = meter.stop()
    side.disarm()
    late = sorted(arrival["at"] - due.timestamp() for arrival in arrivals)
    taken = Taken(late, len(late) / late[-1], usage)
    turns.say_taken(f"burst of {count}", side.name, taken)
    return taken


def _figures(count: int, burst: _Burst) -> list[Figure]:
    """The figures of the turns that began from rest, and whose did not."""
    scenario, why = f"burst of {count} schedules due in one second", "it could not begin from rest"
    taken = {name: repeats for name, repeats in burst.taken.items() if repeats}
    found = turns.figures(scenario, taken) if sides.OURS in taken else []
    return found + [
        Figure(scenario, f"turns of {name} left out", number, None, "turns", why)
        for name, number in burst.left_out.items()
    ]
