"""One worker process: connects, works, drains."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Final

import structlog
from django.conf import settings
from prometheus_client import start_http_server
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    PollerBehaviorAutoscaling,
    UnsandboxedWorkflowRunner,
    Worker,
)

from schedules import background, runner, system_schedules, temporal_bridge, tracing
from schedules.errors import DependencyUnavailable, MirrorRefused
from worker.activities import HEARTBEAT_SECONDS, Activities, use_connections_unchecked
from workflows.compare_mirrors import CompareMirrors
from workflows.converge_mirrors import ConvergeMirrors
from workflows.purge_runs import PurgeRuns
from workflows.run_schedule import RunSchedule

log = structlog.get_logger(__name__)

RECONNECT_SECONDS: Final = 2.0
# How often a worker looks whether the schedules that repair everything else are there.
WATCH_SECONDS: Final = 60.0
# How long a worker that could not look waits at most before it looks again.
LONGEST_PAUSE_SECONDS: Final = 30.0
# After a drain has begun, calls in flight get their full time limit and a little for the record.
DRAIN_SLACK: Final = timedelta(seconds=10)
# How soon the engine offers a call in hand to the process that has it.
HAND_OVER_SECONDS: Final = 5.0
# For what is no run: closing one, convergence, retention.
SPARE_ACTIVITIES: Final = 20
DRAINED_EXIT_CODE: Final = 0
FORCED_EXIT_CODE: Final = 130


class _PrivateErrors(Interceptor):
    """Keeps the text of unforeseen exceptions out of Temporal: it can hold anything. The log has the stack."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap every activity."""
        return _PrivateActivityErrors(next)


class _PrivateActivityErrors(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        try:
            return await super().execute_activity(input)
        except ApplicationError:
            raise
        except Exception as error:
            log.exception("worker.activity_bug")
            raise ApplicationError("The activity failed, see the worker's log", type=type(error).__name__) from None


def main() -> int:
    """Run a worker until SIGTERM or SIGINT; returns the exit status.

    The first signal drains: nothing new is taken and what runs may end. The second stops at once; the engine hands
    what was running to another worker.
    """
    use_connections_unchecked()
    tracing.configure(service="extension-scheduler-worker")
    if settings.WORKER_METRICS_PORT:
        start_http_server(settings.WORKER_METRICS_PORT)
    try:
        return asyncio.run(_main())
    finally:
        tracing.shutdown()


async def _main() -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    asked = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            os.write(2, b'{"event": "worker.stopped_now", "level": "warning"}\n')
            os._exit(FORCED_EXIT_CODE)
        log.info("worker.draining")
        asked = True
        loop.call_soon_threadsafe(stopping.set)

    # Not the loop's own handlers: a second signal has to work while the loop is held up, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    async with runner.make_client(max_connections=settings.WORKER_MAX_CONCURRENT_RUNS) as http_client:
        activities = Activities(client=http_client)
        notifications = asyncio.create_task(activities.deliver_notifications())
        while not stopping.is_set():
            client = await _unless_stopped(_connect(), stopping)
            if client is None:
                break
            try:
                await _work(client, activities, stopping)
            except Exception:
                # E.g. the namespace is not there yet after a server was rebuilt. Waiting is all that helps.
                log.exception("worker.failed")
                await _unless_stopped(asyncio.sleep(RECONNECT_SECONDS), stopping)
        notifications.cancel()
        # The starts of runs that waited for those that ended in the drain.
        await asyncio.to_thread(background.finish_background_work, timeout_seconds=5)
    log.info("worker.stopped")
    return DRAINED_EXIT_CODE


async def _work(client: Client, activities: Activities, stopping: asyncio.Event) -> None:
    graceful = timedelta(milliseconds=settings.EXT_GATEWAY_TIMEOUT_MS) + DRAIN_SLACK
    runs = int(settings.WORKER_MAX_CONCURRENT_RUNS)
    common: dict[str, Any] = {
        "interceptors": [_PrivateErrors()],
        # More than there are runs, as those that have their place must never wait behind those that wait for one.
        "max_concurrent_activities": 2 * runs + SPARE_ACTIVITIES,
        # A cancel reaches an attempt with the answer to its heartbeat.
        "max_heartbeat_throttle_interval": timedelta(seconds=HEARTBEAT_SECONDS),
        "graceful_shutdown_timeout": graceful,
    }
    # Waits for the calls that only this process can wait for.
    own_worker = Worker(client, task_queue=activities.own_queue, activities=[activities.finish_run], **common)
    worker = Worker(
        client,
        task_queue=settings.TEMPORAL_TASK_QUEUE,
        workflows=[RunSchedule, ConvergeMirrors, CompareMirrors, PurgeRuns],
        activities=[
            activities.begin_run,
            activities.run_attempt,
            activities.close_run,
            activities.converge_unsynced,
            activities.compare_mirrors,
            activities.purge_runs,
        ],
        # The workflows are pure, which the import rules check and the stored histories prove; a sandbox for each
        # run would cost more than the run itself.
        workflow_runner=UnsandboxedWorkflowRunner(),
        # A run's workflow task stays open while its first attempt is local.
        max_concurrent_workflow_tasks=runs + SPARE_ACTIVITIES,
        max_concurrent_local_activities=runs,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        **common,
    )
    setup = asyncio.create_task(_install_system_schedules())
    try:
        async with own_worker:
            async with worker:
                log.info("worker.ready", task_queue=settings.TEMPORAL_TASK_QUEUE)
                await stopping.wait()
            await activities.hand_over(patience_seconds=HAND_OVER_SECONDS)
    finally:
        setup.cancel()


async def _connect() -> Client:
    """Connect to Temporal, however long that takes, and say so while it does not answer."""
    while True:
        profile = temporal_bridge.read_profile()
        try:
            client = await Client.connect(**profile, interceptors=tracing.client_interceptors())
        except (RuntimeError, ValueError):
            log.warning("worker.waiting_for_temporal", address=profile["target_host"])
            await asyncio.sleep(RECONNECT_SECONDS)
        else:
            log.info(
                "worker.connected",
                address=profile["target_host"],
                namespace=profile["namespace"],
            )
            return client


async def _install_system_schedules() -> None:
    """See to our own schedules, beside the work: until it succeeds, and then whether they are still there.

    An engine that does not answer may have too much to do, in a burst for one, so it is asked less and less often.
    """
    pause_seconds = RECONNECT_SECONDS
    while True:
        try:
            await asyncio.to_thread(system_schedules.install)
            if paused := await asyncio.to_thread(system_schedules.find_troubles):
                log.warning("worker.system_schedules_paused", **paused)
        except (DependencyUnavailable, MirrorRefused) as error:
            log.warning("worker.system_schedules_not_checked", reason=error.message, again_in_seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        except Exception:
            # Whatever it is, nobody else watches over them.
            log.exception("worker.system_schedules_not_watched")
            await asyncio.sleep(WATCH_SECONDS)
        else:
            pause_seconds = RECONNECT_SECONDS
            await asyncio.sleep(WATCH_SECONDS)


async def _unless_stopped(work: Awaitable[Any], stopping: asyncio.Event) -> Any:
    """The work's result, or None if the process is asked to stop first."""
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None
