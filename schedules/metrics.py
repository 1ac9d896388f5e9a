"""What operators count. Labels are bounded: no tenant, schedule or run is ever one."""

from __future__ import annotations

from prometheus_client import Counter

OFF_GRID_FIRES = Counter(
    "schedule_off_grid_fires_total",
    "Fires of the engine at a time at which the schedule is not due; they leave no run.",
)
