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
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.support.fake_runner import answers, hangs
from workflows import names
from workflows.converge_mirrors import ConvergeMirrors
from workflows.payloads import RunRequest
from workflows.purge_runs import PurgeRuns
from workflows.run_schedule import RunSchedule

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
    assert {file.stem for file in HISTORIES.glob("*/*.json")} >= {"succeeded", "retried", "failed", "cancelled"}


@pytest.mark.parametrize("scenario", ["succeeded", "retried", "failed", "cancelled"])
def test_todays_history_replays(world, worker, fake_runner, temporal_server, scenario):
    gate = threading.Event()
    scripts = {
        "succeeded": [answers()],
        "retried": [answers(503, headers={"retry-after": "1"}), answers()],
        "failed": [answers(404)],
        "cancelled": [hangs(gate)],
    }
    fake_runner.script(world.path, *scripts[scenario])
    run = world.run_now(world.create())
    if scenario == "cancelled":
        fake_runner.wait_for_calls(world.path, 1)

    request = RunRequest(str(world.tenant_id), str(world.install_id), run["schedule_id"], "run_now", run["id"])
    workflow_id = names.started_workflow_id(request)

    async def finish():
        client = await Client.connect(temporal_server)
        handle = client.get_workflow_handle(workflow_id)
        if scenario == "cancelled":
            await handle.cancel()
        with contextlib.suppress(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 60)
        return await handle.fetch_history()

    history = asyncio.run(finish())
    gate.set()

    assert world.finished_run(run["id"])["status"] == {"retried": "succeeded"}.get(scenario, scenario)
    replay(history)
    if version := os.environ.get("RECORD_HISTORIES"):
        target = HISTORIES / version
        target.mkdir(exist_ok=True)
        # Whose machine recorded it is nobody's business and no part of the replay.
        text = re.sub(r'("(?:identity|stackTrace)": *)"(?:[^"\\]|\\.)*"', r'\1""', history.to_json())
        text = text.replace(socket.gethostname(), "recorder")
        (target / f"{scenario}.json").write_text(text)
