"""The activities' names. The worker implements them; the workflows know them by these alone."""

from __future__ import annotations

from typing import Final

BEGIN_RUN: Final = "begin_run"
FINISH_RUN: Final = "finish_run"
RUN_ATTEMPT: Final = "run_attempt"
CLOSE_RUN: Final = "close_run"
CONVERGE_UNSYNCED: Final = "converge_unsynced"
COMPARE_MIRRORS: Final = "compare_mirrors"
PURGE_RUNS: Final = "purge_runs"
