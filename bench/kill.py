"""What a crash in the middle of a burst does: calls that are lost, that come twice, and that come late.

All that works for a side is killed with SIGKILL once a third of its calls have arrived, and started again two seconds
later: the worker, and what fires its schedules (Temporal's server; beat and Redis).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from bench import processes, sides, sink, turns
from bench.report import Figure, compared
from bench.sides import Service, Side
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
to come again. Ours are allowed to overlap, as the others do, so that no call makes way for another. A runner that
remembers idempotency keys answers ours without running the guest twice, and likewise Celery's where one task was
delivered twice. Calls that come twice under two keys, or without one, run twice whatever the runner does. What was in
flight at the crash doubles, and what had been answered without the engine or the broker having written that down; ours
and the bare side wait for each other in one engine when they are back.
{sides.WHAT_EACH_DOES}"""


@dataclass(frozen=True, slots=True)
class Losses:
    """One burst: how many calls had come and were in flight at the crash, how many went wrong, when the last came.

    That is when it first came, in seconds after the burst's time.
    """

    came_before: int
    in_flight: int
    lost: int
    doubled: int
    doubled_under_two_keys: int
    late: int
    last: float


@dataclass(slots=True)
class _Group:
    """Sides that go down together."""

    members: list[Side]
    killed_at: float = 0.0
    recovery: threading.Timer | None = None
    is_back: bool = False
    failure: BaseException | None = None

    def step(self, come: Counter[str], expected: Mapping[str, set[str]]) -> None:
        """Crash once a third of the calls have come, and come back a little later, beside whatever others do."""
        if self.recovery is None and sum(come[side.path] for side in self.members) * 3 >= sum(
            len(expected[one.path]) for one in self.members
        ):
            self.killed_at = time.time()
            processes.kill_together(service.process for service in self._services())
            turns.say(f"killed, {', '.join(f'{one.name} after {come[one.path]} calls' for one in self.members)}")
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

    def _services(self) -> list[Service]:
        """Each once, in the order in which they are started again."""
        return list({id(one.process): one for side in self.members for one in side.services()}.values())

    def _recover(self) -> None:
        try:
            for service in self._services():
                service.process.start()
                service.wait_until_up()
        except Exception as error:  # noqa: BLE001 - raised again by the thread that looks after all
            self.failure = error
        else:
            self.is_back = True


@dataclass(frozen=True, slots=True)
class _Repeat:
    """One burst with its crash: when it was due, the ids of each side's calls by its path, and when who was killed."""

    due: float
    expected: Mapping[str, set[str]]
    killed_at: Mapping[str, float]


def measure(built: Stage, all_sides: Mapping[str, Side]) -> list[Figure]:
    """Each side's crashes. What is left of the stage afterwards is no place to measure anything else."""
    turns.wait_until_quiet(built.sink_port)
    rate = turns.flow_rate(built.sink_port, all_sides[sides.BARE], turns.TRIED_RUNS)
    sink.set_call_seconds(built.sink_port, CALL_SECONDS)
    first = turns.next_minute(lead_seconds=turns.preparing_seconds(SIZES.killed, rate) + turns.ARMING_SECONDS)
    dues = [first + timedelta(seconds=number * ROUND_SECONDS) for number in range(SIZES.kill_rounds)]
    for side in all_sides.values():
        side.prepare(SIZES.killed, dues, may_overlap=True)
    turns.check_prepared(first)
    repeats: list[_Repeat] = []
    arrivals: list[dict[str, Any]] = []
    left_out = ""
    sink.read_arrivals(built.sink_port)
    for number, due in enumerate(dues):
        names = list(all_sides) if number % 2 == 0 else list(all_sides)[::-1]
        end = due.timestamp() + (ROUND_SECONDS - turns.ARMING_SECONDS if due != dues[-1] else PATIENCE_SECONDS)
        try:
            repeats.append(_repeat(built.sink_port, [all_sides[name] for name in names], due, end, arrivals))
        except RuntimeError as reason:
            if not repeats:
                raise
            left_out = str(reason)
            break
    found = _figures(all_sides, repeats, arrivals)
    if left_out:
        found.append(Figure(NAME, "repeats left out", len(dues) - len(repeats), None, "repeats", left_out))
    return found


def _repeat(port: int, members: Sequence[Side], due: datetime, end: float, arrivals: list[dict[str, Any]]) -> _Repeat:
    """One burst, crash and recovery until ``end``; what arrives meanwhile is added to the arrivals."""
    turns.wait_until(due - timedelta(seconds=turns.ARMING_SECONDS))
    for side in members:
        side.arm(due)
    expected = {side.path: side.expected(due) for side in members}
    on_temporal = [side for side in members if side.name != sides.CELERY]
    groups = [_Group(on_temporal), *(_Group([side]) for side in members if side.name == sides.CELERY)]
    turns.wait_until(due)
    _crash_in_burst(port, groups, expected, arrivals, until=end)
    killed_at = {side.name: group.killed_at for group in groups for side in group.members}
    return _Repeat(due.timestamp(), expected, killed_at)


def _figures(
    all_sides: Mapping[str, Side], repeats: Sequence[_Repeat], arrivals: Sequence[dict[str, Any]]
) -> list[Figure]:
    taken: dict[str, list[Losses]] = {name: [] for name in all_sides}
    for repeat in repeats:
        for name, side in all_sides.items():
            # What came of an earlier burst in a later one's time is counted with its own.
            losses = count_losses(
                repeat.expected[side.path], arrivals, due=repeat.due, killed_at=repeat.killed_at[name]
            )
            taken[name].append(losses)
            turns.say(f"killed, {name}: {losses}")

    def of(read: Callable[[Losses], float]) -> dict[str, list[float]]:
        return {name: [read(one) for one in each] for name, each in taken.items()}

    found = compared(NAME, "calls that had come at the crash", "calls", of(lambda one: one.came_before), {})
    found += compared(NAME, "calls in flight at the crash", "calls", of(lambda one: one.in_flight), {})
    for what in ("lost", "doubled", "doubled_under_two_keys", "late"):
        # All together: what is rare must not vanish in a median.
        numbers = {name: [float(sum(getattr(one, what) for one in each))] for name, each in taken.items()}
        found += compared(NAME, f"calls {what.replace('_', ' ')}", f"of {SIZES.killed * len(repeats)}", numbers, {})
    found += compared(NAME, "last of the calls that came, after", "s", of(lambda one: one.last), {})
    return [*found, *turns.missing_note(NAME)]


def count_losses(expected: set[str], arrivals: Sequence[dict[str, Any]], *, due: float, killed_at: float) -> Losses:
    """What went wrong, given the ids that had to come, what did come, and when the side was killed."""
    first: dict[str, float] = {}
    times: Counter[str] = Counter()
    in_flight = 0
    keys: dict[str, set[str]] = {name: set() for name in expected}
    for arrival in sorted(arrivals, key=lambda one: float(one["at"])):
        name = arrival["id"]
        if name in expected:
            first.setdefault(name, arrival["at"])
            times[name] += 1
            keys[name].add(arrival["key"])
            in_flight += killed_at - CALL_SECONDS < arrival["at"] <= killed_at
    doubled = [name for name, number in times.items() if number > 1]
    return Losses(
        came_before=sum(at <= killed_at for at in first.values()),
        in_flight=in_flight,
        lost=len(expected) - len(first),
        doubled=len(doubled),
        # Without a key nobody can tell a repeat.
        doubled_under_two_keys=sum(len(keys[name]) > 1 or "" in keys[name] for name in doubled),
        late=sum(at - due > LATE_SECONDS for at in first.values()),
        last=max(first.values(), default=due) - due,
    )


def _crash_in_burst(
    port: int,
    groups: Sequence[_Group],
    expected: Mapping[str, set[str]],
    arrivals: list[dict[str, Any]],
    *,
    until: float,
) -> None:
    """Let the groups crash and come back, and add all calls until then to the arrivals, repeats among them."""
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
                group.step(come, expected)
            time.sleep(0.05)
        for group in groups:
            group.check_back()
    finally:
        for group in groups:
            group.wait_until_back()
