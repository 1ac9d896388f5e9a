"""The system workflow that repairs mirrors. A system schedule starts it every minute."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from workflows import activities, names
from workflows.payloads import ConvergenceOutcome


@workflow.defn(name=names.CONVERGE)
class ConvergeMirrors:
    """One pass over everything that is unsynced. The next minute's pass is the retry."""

    @workflow.run
    async def run(self) -> ConvergenceOutcome:
        """Return what the pass did."""
        outcome: ConvergenceOutcome = await workflow.execute_activity(
            activities.CONVERGE_UNSYNCED,
            result_type=ConvergenceOutcome,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return outcome
