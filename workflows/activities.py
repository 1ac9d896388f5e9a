"""The activities' names. The worker implements them; the workflows know them by these alone."""

from __future__ import annotations

from typing import Final

RUN_ATTEMPT: Final = "run_attempt"
CLOSE_RUN: Final = "close_run"
CONVERGE_UNSYNCED: Final = "converge_unsynced"
PURGE_RUNS: Final = "purge_runs"
