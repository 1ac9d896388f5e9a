"""What a crash in the middle of a burst does: calls that are lost, that come twice, and that come late.

All that works for a side is killed with SIGKILL once a third of its calls have arrived, and started again two seconds
later: the worker, and what fires its schedules (Temporal's server; beat and Redis).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from bench import sides, sink, turns
from bench.report import Figure, compared
from bench.sides import Side
from bench.sizes import SIZES
from bench.stage import Stage

CALL_SECONDS: Final = 0.5
DOWN_SECONDS: Final = 2.0
# A call that comes later than this after its time is late. A burst of this size alone takes most of it.
LATE_SECONDS: Final = 10.0
# How long the last burst is waited for; those before it have longer. The longest wait is that of a Celery task that a
# dead worker had: it comes back after its visibility timeout.
PATIENCE_SECONDS: Final = 45.0
# From one burst to the next.
ROUND_SECONDS: Final = 60
NAME: Final = f"killed in a burst of {SIZES.killed}"
ABOUT: Final = f"""
{SIZES.killed} schedules of each side are due in the same second, and each call takes {CALL_SECONDS:g} s. Our worker and
the bare one go down together with Temporal, on which both stand, once a third of their calls have arrived; Celery's
worker, beat and Redis once a third of theirs have. All get SIGKILL, and are started again {DOWN_SECONDS:g} s later.
PostgreSQL and the runner stay up. {SIZES.kill_rounds} repeats; the sides share the machine in each, and calls that are
lost, doubled or late are those of all repeats.

A call is lost if it has not come when the last burst is {PATIENCE_SECONDS:g} s past, late if it first came more than
{LATE_SECONDS:g} s after it, and doubled if it came more than once. All sides are at-least-once: what was in flight is
to come again. A runner that remembers idempotency keys answers ours without running the guest twice, and likewise
Celery's where one task was delivered twice. Calls that come twice under two keys, or without one, run twice whatever
the runner does. What doubles is for the most part what was in flight at the crash, so a side that calls faster doubles
more; and ours and the bare side wait for each other in one engine when they are back.
{sides.WHAT_EACH_DOES}"""


@dataclass(frozen=True, slots=True)
class Losses:
    """How many calls of one burst went wrong, and when the last one first came, in seconds after its time."""

    lost: int
    doubled: int
    doubled_under_two_keys: int
    late: int
    last: float


@dataclass(slots=True)
class _Group:
    """Sides that go down together."""

    members: list[Side]
    came_before: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    recovery: threading.Timer | None = None
    is_back: bool = False
    failure: BaseException | None = None

    def step(self, come: Counter[str], expected: dict[str, set[str]], arrivals: Sequence[dict[str, Any]]) -> None:
        """Crash once a third of the calls have come, and come back a little later, beside whatever others do."""
        if self.recovery is None and sum(come[side.path] for side in self.members) * 3 >= sum(
            len(expected[one.path]) for one in self.members
        ):
            for side in self.members:
                side.crash()
                self.came_before[side.name] = come[side.path]
                unanswered = time.time() - CALL_SECONDS
                self.in_flight[side.name] = sum(
                    arrival["path"] == side.path and arrival["at"] > unanswered for arrival in arrivals
                )
                turns.say(f"killed, {side.name}: SIGKILL after {come[side.path]} calls")
            self.recovery = threading.Timer(DOWN_SECONDS, self._recover)
            self.recovery.start()

    def check_back(self) -> None:
        """Raise RuntimeError where it is not back by now: what is due next would fall into its absence."""
        if not self.is_back:
            message = "a side was not brought down and back in time; this machine is too slow or too busy"
            raise RuntimeError(message) from self.failure

    def wait_until_back(self) -> None:
        """Leave nothing to be started behind anybody's back."""
        if self.recovery is not None:
            self.recovery.join()

    def _recover(self) -> None:
        try:
            for side in self.members:
                side.recover()
        except Exception as error:  # noqa: BLE001 - raised again by the thread that looks after all
            self.failure = error
        else:
            self.is_back = True


def measure(built: Stage, all_sides: Mapping[str, Side]) -> list[Figure]:
    """Each side's crashes. What is left of the stage afterwards is no place to measure anything else."""
    turns.wait_until_quiet(built.sink_port)
    rate = turns.flow_rate(built.sink_port, all_sides[sides.BARE], turns.TRIED_RUNS)
    sink.set_call_seconds(built.sink_port, CALL_SECONDS)
    first = turns.next_minute(lead_seconds=turns.preparing_seconds(SIZES.killed, rate) + turns.ARMING_SECONDS)
    dues = [first + timedelta(seconds=number * ROUND_SECONDS) for number in range(SIZES.kill_rounds)]
    for side in all_sides.values():
        side.prepare(SIZES.killed, dues)
    turns.check_prepared(first)
    expected: list[dict[str, set[str]]] = []
    arrivals: list[dict[str, Any]] = []
    came_before: dict[str, list[float]] = {}
    in_flight: dict[str, list[float]] = {}
    sink.read_arrivals(built.sink_port)
    for due in dues:
        turns.wait_until(due - timedelta(seconds=turns.ARMING_SECONDS))
        for side in all_sides.values():
            side.arm(due)
        expected.append({side.path: side.expected(due) for side in all_sides.values()})
        turns.wait_until(due)
        end = due.timestamp() + (ROUND_SECONDS - turns.ARMING_SECONDS if due != dues[-1] else PATIENCE_SECONDS)
        came, groups = _crash_in_burst(built.sink_port, all_sides, expected[-1], until=end)
        arrivals += came
        for name in all_sides:
            came_before.setdefault(name, []).append(float(sum(group.came_before[name] for group in groups)))
            in_flight.setdefault(name, []).append(float(sum(group.in_flight[name] for group in groups)))
    found = compared(NAME, "calls that had come at the crash", "calls", came_before, {})
    found += compared(NAME, "calls in flight at the crash", "calls", in_flight, {})
    return [*found, *_figures(all_sides, dues, expected, arrivals)]


def _figures(
    all_sides: Mapping[str, Side],
    dues: Sequence[datetime],
    expected: Sequence[dict[str, set[str]]],
    arrivals: Sequence[dict[str, Any]],
) -> list[Figure]:
    taken: dict[str, list[Losses]] = {}
    for due, ids in zip(dues, expected, strict=True):
        for name, side in all_sides.items():
            # What came of an earlier burst in a later one's time is counted with its own.
            losses = count_losses(ids[side.path], arrivals, due=due.timestamp())
            taken.setdefault(name, []).append(losses)
            turns.say(f"killed, {name}: {losses}")
    found: list[Figure] = []
    for what in ("lost", "doubled", "doubled_under_two_keys", "late"):
        # All together: what is rare must not vanish in a median.
        numbers = {name: [float(sum(getattr(one, what) for one in each))] for name, each in taken.items()}
        found += compared(NAME, f"calls {what.replace('_', ' ')}", f"of {SIZES.killed * len(dues)}", numbers, {})
    lasts = {name: [one.last for one in each] for name, each in taken.items()}
    return [*found, *compared(NAME, "last of the calls that came, after", "s", lasts, {}), *turns.missing_note(NAME)]


def count_losses(expected: set[str], arrivals: Sequence[dict[str, Any]], *, due: float) -> Losses:
    """What went wrong, given the ids that had to come and what did come."""
    first: dict[str, float] = {}
    times: Counter[str] = Counter()
    keys: dict[str, set[str]] = {name: set() for name in expected}
    for arrival in sorted(arrivals, key=lambda one: float(one["at"])):
        name = arrival["id"]
        if name in expected:
            first.setdefault(name, arrival["at"] - due)
            times[name] += 1
            keys[name].add(arrival["key"])
    doubled = [name for name, number in times.items() if number > 1]
    return Losses(
        lost=len(expected) - len(first),
        doubled=len(doubled),
        # Without a key nobody can tell a repeat.
        doubled_under_two_keys=sum(len(keys[name]) > 1 or "" in keys[name] for name in doubled),
        late=sum(after > LATE_SECONDS for after in first.values()),
        last=max(first.values(), default=0.0),
    )


def _crash_in_burst(
    port: int, all_sides: Mapping[str, Side], expected: dict[str, set[str]], *, until: float
) -> tuple[list[dict[str, Any]], list[_Group]]:
    """Let the sides crash and come back.

    Returns all calls until then, repeats among them, and the groups that went down together.
    """
    on_temporal = [side for name, side in all_sides.items() if name != sides.CELERY]
    groups = [_Group(on_temporal), *(_Group([side]) for name, side in all_sides.items() if name == sides.CELERY)]
    arrivals: list[dict[str, Any]] = []
    come: Counter[str] = Counter()
    seen: set[str] = set()
    try:
        while time.time() < until:
            for arrival in sink.read_arrivals(port):
                arrivals.append(arrival)
                if arrival["id"] not in seen and arrival["id"] in expected.get(arrival["path"], ()):
                    seen.add(arrival["id"])
                    come[arrival["path"]] += 1
            for group in groups:
                group.step(come, expected, arrivals)
            time.sleep(0.05)
        for group in groups:
            group.check_back()
    finally:
        for group in groups:
            group.wait_until_back()
    return arrivals, groups
