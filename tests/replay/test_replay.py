"""Workflow code replays every history that a released version wrote.

Histories are stored when a release changes what the workflow does:
``RECORD_HISTORIES=0.2.0 .venv/bin/python -m pytest tests/replay`` writes today's under that name. Stored ones are
never changed: runs of that version may be in flight when the next one is rolled out.
"""

import asyncio
import contextlib
import os
import re
import socket
import threading
import uuid
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.support import processes
from tests.support.fake_runner import answers, hangs
from tests.support.waiting import eventually
from workflows import names
from workflows.converge_mirrors import ConvergeMirrors
from workflows.payloads import RunRequest
from workflows.purge_runs import PurgeRuns
from workflows.run_schedule import RunSchedule

SCENARIOS = {"succeeded", "retried", "failed", "cancelled", "in_hand", "cancelled_in_hand", "retried_twice"}
ENDS = {"retried": "succeeded", "retried_twice": "succeeded", "in_hand": "succeeded", "cancelled_in_hand": "cancelled"}
HISTORIES = Path(__file__).parent / "histories"


def replay(history):
    replayer = Replayer(
        workflows=[RunSchedule, ConvergeMirrors, PurgeRuns], workflow_runner=UnsandboxedWorkflowRunner()
    )
    asyncio.run(replayer.replay_workflow(history))


@pytest.mark.parametrize("file", sorted(HISTORIES.glob("*/*.json")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_released_history_replays(file):
    replay(WorkflowHistory.from_json(file.stem, file.read_text()))


def test_there_are_released_histories():
    assert {file.stem for file in HISTORIES.glob("*/*.json")} >= SCENARIOS


@pytest.fixture
def patient_worker(world, worker_environment, settings, tmp_path):
    """A worker whose calls may take longer than a local activity holds them."""
    settings.TEMPORAL_TASK_QUEUE = f"test-{uuid.uuid4()}"
    process = processes.start_worker(
        environment=worker_environment
        | {"TEMPORAL_TASK_QUEUE": settings.TEMPORAL_TASK_QUEUE, "EXT_GATEWAY_TIMEOUT_MS": "30000"},
        log_file=tmp_path / "worker.log",
    )
    eventually(lambda: process.says("worker.ready"))
    yield
    process.kill()


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_todays_history_replays(world, patient_worker, fake_runner, temporal_server, scenario):
    gate = threading.Event()
    busy = answers(503, headers={"retry-after": "1"})
    scripts = {
        "succeeded": [answers()],
        "retried": [busy, answers()],
        "retried_twice": [busy, busy, answers()],
        "failed": [answers(404)],
        "cancelled": [hangs(gate)],
        "in_hand": [hangs(gate)],
        "cancelled_in_hand": [hangs(gate)],
    }
    fake_runner.script(world.path, *scripts[scenario])
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)
    request = RunRequest(str(world.tenant_id), str(world.install_id), run["schedule_id"], "run_now", run["id"])
    workflow_id = names.started_workflow_id(request)

    async def with_handle(work):
        client = await Client.connect(temporal_server)
        return await work(client.get_workflow_handle(workflow_id))

    async def is_in_hand(handle):
        return len((await handle.describe()).raw_description.pending_activities) > 0

    async def finish(handle):
        with contextlib.suppress(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 60)
        return await handle.fetch_history()

    if scenario.endswith("in_hand"):
        eventually(lambda: asyncio.run(with_handle(is_in_hand)))
    if scenario.startswith("cancelled"):
        asyncio.run(with_handle(lambda handle: handle.cancel()))
    else:
        gate.set()
    history = asyncio.run(with_handle(finish))
    gate.set()

    assert world.finished_run(run["id"])["status"] == ENDS.get(scenario, scenario)
    replay(history)
    if version := os.environ.get("RECORD_HISTORIES"):
        target = HISTORIES / version
        target.mkdir(exist_ok=True)
        # Whose machine recorded it is nobody's business and no part of the replay.
        text = re.sub(r'("(?:identity|stackTrace)": *)"(?:[^"\\]|\\.)*"', r'\1""', history.to_json())
        text = text.replace(socket.gethostname(), "recorder")
        (target / f"{scenario}.json").write_text(text)
