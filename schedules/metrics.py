"""What operators count. Labels are bounded: no tenant, schedule or run is ever one."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

OFF_GRID_FIRES = Counter(
    "schedule_off_grid_fires_total",
    "Fires of the engine at a time at which the schedule is not due; they leave no run.",
)
RUNS = Counter("schedule_runs_total", "Runs that ended, by terminal state and trigger.", ["status", "trigger"])
RUNS_REQUESTED = Counter("schedule_runs_requested_total", "Runs that were asked for by hand.", ["trigger"])
ATTEMPTS = Counter("schedule_attempts_total", "Calls to the runner, by what came of them.", ["outcome"])
RETRIES = Counter("schedule_retries_total", "Attempts that are to be repeated.")
CLAIMS_REFUSED = Counter(
    "schedule_claims_refused_total",
    "Fires and requests that could not start a run at once, by the run's state.",
    ["status"],
)
RUN_DURATION = Histogram(
    "schedule_run_duration_seconds", "From a run's first attempt to its end.", ["status"], buckets=_SECONDS
)
ATTEMPT_DURATION = Histogram("schedule_attempt_duration_seconds", "Length of a call to the runner.", buckets=_SECONDS)
RUN_LATENESS = Histogram(
    "schedule_run_lateness_seconds",
    "From a slot, or a request, to the run's first attempt.",
    ["trigger"],
    buckets=_SECONDS,
)
QUEUE_WAIT = Histogram(
    "schedule_queue_wait_seconds", "From the engine's offer of an attempt to its start in a worker.", buckets=_SECONDS
)
RUNS_IN_FLIGHT = Gauge(
    "schedule_attempts_in_flight", "Attempts that this process works on.", multiprocess_mode="livesum"
)
AUTO_PAUSES = Counter("schedule_auto_pauses_total", "Schedules that the platform disabled.")
NOTIFICATIONS = Counter("schedule_notifications_total", "Attempts to deliver a message.", ["kind", "outcome"])
LEDGER_SETTLED = Counter(
    "schedule_ledger_settled_total", "Due slots that nobody had claimed and the ledger sweep settled."
)
DRIFT = Counter("schedule_drift_total", "Differences between rows and mirrors that a comparison found.", ["kind"])
HOST_API_CALLS = Counter(
    "extension_scheduler_api_calls_total",
    "Calls of the host API by operation and HTTP status; `refused` is a refusal by the rules, which travels as 200.",
    ["operation", "status"],
)
HOST_API_DURATION = Histogram(
    "extension_scheduler_api_call_duration_seconds",
    "Length of a call of the host API.",
    ["operation"],
    buckets=_SECONDS,
)
