"""What enters and leaves workflows and activities: ids and states, never a payload, a config, a secret or a header.

Members are only ever added, with a default, because stored histories are read with these classes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunRequest:
    """Input of `RunSchedule`.

    ``invocation_id`` and ``slot`` (RFC 3339 UTC with seconds) are empty for a fire of the engine, which knows its time.
    ``begins_locally`` is true for everything that this version starts; runs that an earlier one has started go on as
    they began.
    """

    tenant_id: str
    install_id: str
    schedule_id: str
    trigger: str = "schedule"
    invocation_id: str = ""
    slot: str = ""
    begins_locally: bool = False


@dataclass(frozen=True)
class AttemptRequest:
    """Input of the activity that claims a run, calls the runner once and records what came back.

    ``slot`` is RFC 3339 UTC with seconds.
    """

    tenant_id: str
    install_id: str
    schedule_id: str
    trigger: str
    invocation_id: str
    slot: str


@dataclass(frozen=True)
class CloseRequest:
    """Input of the activity that gives a run its terminal state when the attempt could not do it itself."""

    tenant_id: str
    schedule_id: str
    invocation_id: str
    status: str
    reason: str
    install_id: str = ""
    trigger: str = ""
    slot: str = ""


@dataclass(frozen=True)
class AttemptResult:
    """What one attempt amounts to.

    ``status`` is the run's state, ``retry_in_seconds`` the pause before its next attempt where it is not over. Where
    the call has not ended yet, ``in_hand_of`` is the task queue of the process that waits for it and the rest is empty.
    """

    status: str = ""
    reason: str = ""
    retry_in_seconds: float | None = None
    in_hand_of: str = ""


@dataclass(frozen=True)
class RunOutcome:
    """Result of a run: its terminal state and, in a word or two, why. ``status`` is empty where no run was due."""

    status: str
    reason: str = ""


@dataclass(frozen=True)
class ComparisonOutcome:
    """Result of comparing every row with its mirror."""

    compared: int
    repaired: int
    refused: bool


@dataclass(frozen=True)
class PurgeOutcome:
    """Result of deleting runs whose time is over."""

    runs: int


@dataclass(frozen=True)
class ConvergenceOutcome:
    """Result of one pass over what is unsynced."""

    pushed: int
    removed: int
    started: int
    failed: int
    settled: int = 0
