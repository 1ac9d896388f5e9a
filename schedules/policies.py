"""What follows from a schedule's policies: retries, making up for outages, pausing. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from schedules import cron
from schedules.models import CatchUpPolicy, OverlapPolicy, RunStatus

# A slot that could only start later than this is late: it is not run unless the catch-up policy says so.
LATENESS_LIMIT: Final = timedelta(minutes=5)
MAX_CAUGHT_UP: Final = 100
MAX_ATTEMPTS: Final = 10
# However soon the other side wants to be called again: "retry-after: 0" must not become a hot loop.
SHORTEST_DELAY_SECONDS: Final = 1.0
HOUR_SECONDS: Final = 3600
PAUSE_AFTER_FREQUENT: Final = 20
PAUSE_AFTER_RARE: Final = 5

LATE_REASON: Final = f"it could only start more than {LATENESS_LIMIT.seconds // 60} minutes late"
NEWER_REASON: Final = "a newer slot ran in its place"
BEYOND_REASON: Final = f"only the newest {MAX_CAUGHT_UP} slots of an outage are made up for"


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be; null stands for the platform's own where it is allowed."""

    lowest: float
    highest: float
    nullable: bool = False


RANGES: Final = {
    "retry_max_attempts": Range(1, MAX_ATTEMPTS),
    "retry_first_delay_seconds": Range(1, 3600),
    "retry_factor": Range(1, 10),
    "retry_longest_delay_seconds": Range(1, 86_400),
    "run_deadline_seconds": Range(1, 86_400),
    "attempt_timeout_seconds": Range(1, 600, nullable=True),
    "pause_after_failures": Range(0, 1000, nullable=True),
}
CHOICES: Final = {"overlap_policy": OverlapPolicy, "catch_up_policy": CatchUpPolicy}
# The members of a schedule that are policies.
MEMBERS: Final = RANGES.keys() | CHOICES.keys()


def is_nullable(member: str) -> bool:
    """Whether null is a value of the policy: the platform's own."""
    return member in RANGES and RANGES[member].nullable


def problem_with(member: str, value: Any, *, platform_timeout_ms: int) -> str:
    """What is wrong with a policy's value, or an empty text.

    An attempt's time limit may be at most the platform's, which is given in milliseconds.
    """
    if member in CHOICES:
        words = CHOICES[member].values
        return "" if value in words else f"{member} must be one of {', '.join(words)}"
    allowed = RANGES[member]
    if value is None and allowed.nullable:
        return ""
    highest = allowed.highest
    if member == "attempt_timeout_seconds":
        highest = max(allowed.lowest, platform_timeout_ms // 1000)
    # The comparison is false for what is not a number, too.
    fits = isinstance(value, int | float) and allowed.lowest <= value <= highest
    return "" if fits else f"{member} must be {allowed.lowest:g} to {highest:g}"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a run's failed attempts are repeated. Times in seconds."""

    max_attempts: int = 3
    first_delay_seconds: float = 10.0
    factor: float = 2.0
    longest_delay_seconds: float = 300.0
    deadline_seconds: float = 600.0

    def delay_before_next(
        self,
        *,
        attempts_recorded: int,
        elapsed_seconds: float,
        wanted_seconds: float | None,
    ) -> float | None:
        """Seconds until the next attempt, or None where this one was the last.

        ``wanted_seconds`` is what the other side asked for; it takes the place of our own delay, in full or, beyond the
        deadline, not at all: coming back early would be refused again.
        """
        if attempts_recorded >= self.max_attempts:
            return None
        backoff = self.first_delay_seconds * self.factor ** (attempts_recorded - 1)
        delay = min(backoff, self.longest_delay_seconds)
        if wanted_seconds is not None:
            delay = max(wanted_seconds, SHORTEST_DELAY_SECONDS)
        return delay if elapsed_seconds + delay < self.deadline_seconds else None


@dataclass(frozen=True, slots=True)
class PlannedSlot:
    """What becomes of a slot that nobody has claimed. ``status`` is queued or terminal."""

    slot: datetime
    status: RunStatus
    reason: str = ""
    catch_up: bool = False


def plan_catch_up(
    unclaimed: Sequence[datetime], *, policy: CatchUpPolicy, now: datetime, newest_claimed: datetime | None
) -> list[PlannedSlot]:
    """What becomes of due slots without a run, oldest first.

    A slot that is not late yet is run as usual. Of the late ones `none` runs none; `latest` runs the newest one, unless
    a newer slot is run anyway, and the others are superseded; `all` runs the newest hundred. ``newest_claimed`` is the
    newest slot that has a run already, which is only looked at by `latest`.
    """
    slots = sorted(unclaimed)
    late = [slot for slot in slots if now > slot + LATENESS_LIMIT]
    fresh = [PlannedSlot(slot, RunStatus.QUEUED) for slot in slots[len(late) :]]
    if policy == CatchUpPolicy.ALL:
        split = max(0, len(late) - MAX_CAUGHT_UP)
        beyond = [PlannedSlot(slot, RunStatus.MISSED, BEYOND_REASON) for slot in late[:split]]
        return [*beyond, *(PlannedSlot(slot, RunStatus.QUEUED, catch_up=True) for slot in late[split:]), *fresh]
    if policy == CatchUpPolicy.LATEST and slots:
        newest = slots[-1]
        is_newest = newest_claimed is None or newest > newest_claimed
        replaced = slots[:-1] if is_newest else late
        superseded = [PlannedSlot(slot, RunStatus.SUPERSEDED, NEWER_REASON) for slot in replaced]
        if not is_newest:
            return [*superseded, *fresh]
        return [*superseded, PlannedSlot(newest, RunStatus.QUEUED, catch_up=not fresh)]
    return [*(PlannedSlot(slot, RunStatus.MISSED, LATE_REASON) for slot in late), *fresh]


def plan_overtaken(unclaimed: Sequence[datetime], *, policy: CatchUpPolicy) -> list[PlannedSlot]:
    """What becomes of slots of a long outage that are followed by more newer ones than are ever made up for."""
    if policy == CatchUpPolicy.LATEST:
        return [PlannedSlot(slot, RunStatus.SUPERSEDED, NEWER_REASON) for slot in sorted(unclaimed)]
    reason = BEYOND_REASON if policy == CatchUpPolicy.ALL else LATE_REASON
    return [PlannedSlot(slot, RunStatus.MISSED, reason) for slot in sorted(unclaimed)]


def pause_threshold(explicit: int | None, expression: cron.Expression) -> int:
    """After how many failed runs in a row a schedule is disabled; 0 is never.

    Where the schedule does not say: 20 for one that is due more often than hourly, 5 for any other.
    """
    if explicit is not None:
        return explicit
    return PAUSE_AFTER_FREQUENT if cron.shortest_gap_seconds(expression) < HOUR_SECONDS else PAUSE_AFTER_RARE
