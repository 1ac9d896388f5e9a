"""The system workflow that deletes runs whose time is over. A system schedule starts it every hour."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from workflows import activities, names
from workflows.payloads import PurgeOutcome


@workflow.defn(name=names.PURGE)
class PurgeRuns:
    """One pass over all tenants. The next hour's pass is the retry, and goes on where this one stopped."""

    @workflow.run
    async def run(self) -> PurgeOutcome:
        """Return what the pass deleted."""
        outcome: PurgeOutcome = await workflow.execute_activity(
            activities.PURGE_RUNS,
            result_type=PurgeOutcome,
            start_to_close_timeout=timedelta(minutes=50),
            heartbeat_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return outcome
