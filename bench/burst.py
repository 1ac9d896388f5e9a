"""Schedules that are due in the same second: how late each call is, how fast all are done, and what that takes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from bench import sides, sink, turns
from bench.processes import Meter
from bench.report import Figure
from bench.sides import Side
from bench.sizes import SIZES
from bench.stage import Stage
from bench.turns import Taken

ABOUT: Final = f"""
So many schedules are due in one second; all sides call the same sink, which answers at once and stamps each arrival.
Lateness counts from the second to the arrival. The sides take turns, {SIZES.rounds} each, and the figures are medians
(lowest-highest). Ours are due on full minutes, and the others in between, in an order that changes from round to round.
The turns are as far apart as the engine's rate in a flow lets expect. One that still cannot begin from rest, or is not
at its end when the next is due, is left out, and so is one whose calls do not all come; each is said, with its reason.
Where it could not begin, it is made up for at the end if it is Celery's, whose schedules can be due at any time.
Processor time counts from two seconds before the instant until every run is at its end.

Bare Temporal is not the engine's own limit here: there is no time for it with a local activity, which the steady flow
has, too.
{sides.WHAT_EACH_DOES}"""
# A burst's rate as a share of the flow's. An engine that brings fewer runs a second than this is slow, and keeps less
# of its rate in a burst.
SWIFT: Final = 58.0
SHARES_WHERE_SWIFT: Final = {sides.OURS: 0.6, sides.BARE: 0.6, sides.CELERY: 2.4}
SHARES_WHERE_SLOW: Final = {sides.OURS: 0.34, sides.BARE: 0.34, sides.CELERY: 1.6}
# At this rate the full sizes just fit between their minutes. A faster engine gains nothing by turns that are closer.
FASTEST_NEEDED: Final = 63.0
# From the last call until every run is recorded and counted.
ENDING_SECONDS: Final = 2.5
# How long before the instant a side must have been left alone. Beat looks for changes each five seconds.
REST_SECONDS: Final = {sides.OURS: 2, sides.BARE: 2, sides.CELERY: 6}
# Whose schedules are made for one instant only, shortly before it: a turn that was left out can be made up for.
DUE_AT_WILL: Final = (sides.CELERY,)
# Of every second round, by the size's place among `SIZES.bursts`. Ours are due on full minutes, as our cron has no
# seconds; the others' turns are where they fit between these, one before the other and then the other way round.
ORDERS: Final = (
    ((1, sides.OURS), (0, sides.CELERY), (0, sides.BARE), (0, sides.OURS), (1, sides.BARE), (1, sides.CELERY)),
    ((1, sides.OURS), (0, sides.BARE), (0, sides.CELERY), (0, sides.OURS), (1, sides.CELERY), (1, sides.BARE)),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One side's turn at one size, so many seconds after the begin of the first."""

    seconds: int
    count: int
    side: str


@dataclass(slots=True)
class _Burst:
    """What came of one size: each side's turns, and how many of whose were not as laid out, and why."""

    taken: dict[str, list[Taken]] = field(default_factory=dict)
    made_up_for: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)


class _NotAtRest(RuntimeError):
    """A turn could not begin, which says nothing of the side whose turn it is."""


def measure(built: Stage, all_sides: Mapping[str, Side]) -> list[Figure]:
    """Each side's turns at each size."""
    rate = turns.flow_rate(built.sink_port, all_sides[sides.BARE], turns.TRIED_RUNS)
    timetable = lay_out(all_sides, rate)
    turns.say(
        f"the engine brings {rate:.0f} runs a second: the last burst is {timetable[-1].seconds} s after the first"
    )
    seconds = turns.preparing_seconds(sum(SIZES.bursts), rate)
    prepared, begins = _prepare(all_sides, timetable, preparing_seconds=seconds)
    bursts = _take_all(built.sink_port, prepared, timetable, begins)
    return [figure for count, burst in bursts.items() for figure in _figures(count, burst)]


def lay_out(all_sides: Collection[str], rate: float, counts: Sequence[int] = SIZES.bursts) -> list[Turn]:
    """The turns of those sides that there are: none is due before the one before it is likely to be over."""
    shares = SHARES_WHERE_SWIFT if rate >= SWIFT else SHARES_WHERE_SLOW
    rate = min(rate, FASTEST_NEEDED)
    found: list[Turn] = []
    free = -float(REST_SECONDS[sides.OURS])
    for place, side in itertools.chain.from_iterable(ORDERS[number % 2] for number in range(SIZES.rounds)):
        if place >= len(counts) or side not in all_sides:
            continue
        count = counts[place]
        seconds = math.ceil(free + REST_SECONDS[side])
        if side == sides.OURS:
            seconds = math.ceil(seconds / 60) * 60
        found.append(Turn(seconds, count, side))
        free = seconds + count / (rate * shares[side]) + ENDING_SECONDS
    return found


def _prepare(
    all_sides: Mapping[str, Side], timetable: list[Turn], *, preparing_seconds: float
) -> tuple[dict[tuple[int, str], Side], datetime]:
    """Make all schedules before the first turn, so that no turn has to wait for its own; and when it all begins."""
    begins = turns.next_minute(lead_seconds=preparing_seconds + turns.ARMING_SECONDS)
    prepared: dict[tuple[int, str], Side] = {}
    for name, side in all_sides.items():
        for count in SIZES.bursts:
            prepared[count, name] = copy(side)
            dues = [
                begins + timedelta(seconds=turn.seconds)
                for turn in timetable
                if (turn.count, turn.side) == (count, name)
            ]
            prepared[count, name].prepare(count, dues)
    turns.check_prepared(begins)
    return prepared, begins


def _take_all(
    port: int, prepared: Mapping[tuple[int, str], Side], timetable: Sequence[Turn], begins: datetime
) -> dict[int, _Burst]:
    """What came of each size's turns."""
    bursts = {count: _Burst() for count in SIZES.bursts}
    dues = {turn: begins + timedelta(seconds=turn.seconds) for turn in timetable}
    to_make_up_for: list[tuple[Turn, str]] = []

    def take(turn: Turn, due: datetime, *, over_by: datetime | None, may_come_again: bool) -> None:
        side, burst = prepared[turn.count, turn.side], bursts[turn.count]
        try:
            burst.taken.setdefault(turn.side, []).append(_take(port, side, due, turn.count, over_by=over_by))
        except RuntimeError as reason:
            turns.say(f"burst of {turn.count}, {turn.side}: left out, {reason}")
            if may_come_again and isinstance(reason, _NotAtRest):
                to_make_up_for.append((turn, str(reason)))
            else:
                burst.left_out[turn.side, str(reason)] += 1

    for number, turn in enumerate(timetable):
        # What is due at will does not come before it is armed.
        over_by = next((dues[one] for one in timetable[number + 1 :] if one.side not in DUE_AT_WILL), None)
        take(turn, dues[turn], over_by=over_by, may_come_again=turn.side in DUE_AT_WILL)
    for turn, reason in to_make_up_for:
        bursts[turn.count].made_up_for[turn.side, reason] += 1
        soon = datetime.now(UTC) + timedelta(seconds=turns.ARMING_SECONDS + REST_SECONDS[turn.side])
        take(turn, soon, over_by=None, may_come_again=False)
    return bursts


def _take(port: int, side: Side, due: datetime, count: int, *, over_by: datetime | None) -> Taken:
    """One turn; raises _NotAtRest where it could not begin, or RuntimeError where it did not end as it has to."""
    turns.wait_until(due - timedelta(seconds=turns.ARMING_SECONDS))
    if datetime.now(UTC) > due - timedelta(seconds=REST_SECONDS[side.name]):
        raise _NotAtRest("as the turn before took too long")
    side.arm(due)
    turns.wait_until(due - timedelta(seconds=2))
    # Also the schedules of a turn that was left out are due at its time.
    if any(arrival["at"] > due.timestamp() - turns.ARMING_SECONDS for arrival in sink.read_arrivals(port)):
        side.disarm()
        raise _NotAtRest("as calls of another turn were still coming")
    meter = Meter(side.pids())
    meter.start()
    try:
        turns.wait_until(due)
        arrivals = turns.collect(port, side.path, side.expected(due))
        side.wait_until_done(due)
        is_in_time = over_by is None or datetime.now(UTC) < over_by
        turns.settle()
    finally:
        usage = meter.stop()
        side.disarm()
    if not is_in_time:
        raise RuntimeError("as it was not over when the next was due")
    late = sorted(arrival["at"] - due.timestamp() for arrival in arrivals)
    taken = Taken(late, len(late) / late[-1], usage)
    turns.say_taken(f"burst of {count}", side.name, taken)
    return taken


def _figures(count: int, burst: _Burst) -> list[Figure]:
    """The figures of the turns that were taken, and whose were not."""
    scenario = f"burst of {count} schedules due in one second"
    taken: dict[str, list[Taken]] = {side: burst.taken[side] for side in sides.ALL if burst.taken.get(side)}
    # What is held against ours has nothing to be held against without.
    found = turns.figures(scenario, taken) if sides.OURS in taken else []
    for what, turns_of in (("made up for", burst.made_up_for), ("left out", burst.left_out)):
        found += [
            Figure(scenario, f"turns of {name} {what}", number, None, "turns", why)
            for (name, why), number in turns_of.items()
        ]
    return found
