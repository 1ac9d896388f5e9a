"""The least that Temporal needs to call an endpoint: a workflow with one activity that POSTs, and nothing else.

``python -m bench.bare`` is its worker. It keeps no history of its own, has no policies, tells nobody anything and
retries as the engine does by default.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import httpx
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

TASK_QUEUE: Final = "bench-bare"
PATH: Final = "/bare"
# A dead worker's call is repeated after this, as the engine learns of its end in no other way.
CALL_LIMIT: Final = timedelta(seconds=15)


@dataclass(frozen=True)
class Post:
    """Whom a call stands for."""

    id: str


@workflow.defn
class BareRun:
    """One call."""

    @workflow.run
    async def run(self, post: Post) -> int:
        """Return the HTTP status."""
        return await workflow.execute_activity(call, post, start_to_close_timeout=CALL_LIMIT)


@workflow.defn
class BareLocalRun:
    """One call, by the worker that has the workflow, which takes the engine fewer steps."""

    @workflow.run
    async def run(self, post: Post) -> int:
        """Return the HTTP status."""
        return await workflow.execute_local_activity(call, post, start_to_close_timeout=CALL_LIMIT)


_client: list[httpx.AsyncClient] = []


@activity.defn
async def call(post: Post) -> int:
    """POST to the sink, under the workflow's id: a schedule's fires differ in nothing else."""
    workflow_id = activity.info().workflow_id or ""
    headers = {"x-idempotency-key": workflow_id}
    answer = await _client[0].post(PATH, json={"id": workflow_id, "schedule": post.id}, headers=headers)
    return answer.status_code


async def _main() -> None:
    limits = httpx.Limits(max_connections=600, max_keepalive_connections=100)
    async with httpx.AsyncClient(
        base_url=os.environ["RUNNER_BASE_URL"], limits=limits, timeout=CALL_LIMIT.total_seconds()
    ) as client:
        _client.append(client)
        temporal = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
        # Polls as our own worker does, so that what differs is what is done and not how it is polled for.
        worker = Worker(
            temporal,
            task_queue=TASK_QUEUE,
            workflows=[BareRun, BareLocalRun],
            activities=[call],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_concurrent_activities=600,
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
            activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        )
        await worker.run()


if __name__ == "__main__":
    asyncio.run(_main())
