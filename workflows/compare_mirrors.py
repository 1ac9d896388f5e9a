"""The system workflow that compares every row with its mirror. A system schedule starts it every quarter of an hour."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from workflows import activities, names
from workflows.payloads import ComparisonOutcome


@workflow.defn(name=names.COMPARE)
class CompareMirrors:
    """One full comparison. The next quarter's is the retry."""

    @workflow.run
    async def run(self) -> ComparisonOutcome:
        """Return what was found."""
        outcome: ComparisonOutcome = await workflow.execute_activity(
            activities.COMPARE_MIRRORS,
            result_type=ComparisonOutcome,
            start_to_close_timeout=timedelta(minutes=50),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return outcome
