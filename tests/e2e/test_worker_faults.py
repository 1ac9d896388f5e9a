"""Real worker processes under faults: killed, started too early, cut off from the database, drained."""

import asyncio
import signal
import subprocess
import threading
import time
import uuid

import pytest
from django.db import connection
from temporalio.client import Client

from scheduler_project import embedded
from schedules.models import ScheduleRun
from tests.support import processes
from tests.support.fake_runner import answers, hangs
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
def start_worker(world, worker_environment, settings, tmp_path):
    """Starts workers that alone serve this test's schedules, on a task queue of their own."""
    settings.TEMPORAL_TASK_QUEUE = f"test-{uuid.uuid4()}"
    started = []

    def start(**environment):
        process = processes.start_worker(
            environment=worker_environment
            | {"TEMPORAL_TASK_QUEUE": settings.TEMPORAL_TASK_QUEUE, "EXT_GATEWAY_TIMEOUT_MS": "30000"}
            | environment,
            log_file=tmp_path / f"worker-{len(started)}.log",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.kill()


async def waits_in_hand(address, workflow_id):
    """Whether the engine knows that a process has the run's call in hand."""
    client = await Client.connect(address)
    description = await client.get_workflow_handle(workflow_id).describe()
    pending = description.raw_description.pending_activities
    return any(
        activity.activity_type.name == "finish_run" and activity.last_started_time.seconds for activity in pending
    )


@pytest.mark.parametrize("phase", ["local", "in hand"])
def test_a_worker_killed_during_a_call_leaves_one_run_with_one_key(
    world, start_worker, fake_runner, temporal_server, phase
):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate), answers())
    first = start_worker()
    eventually(lambda: first.says("worker.ready"))
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)
    if phase == "in hand":
        workflow_id = world.api("GET", f"runs/{run['id']}")["workflow_id"]
        eventually(lambda: asyncio.run(waits_in_hand(temporal_server, workflow_id)))

    first.kill()
    second = start_worker()
    eventually(lambda: second.says("worker.ready"))
    finished = world.finished_run(run["id"])
    gate.set()

    assert finished["status"] == "succeeded"
    calls = fake_runner.calls[world.path]
    assert [call.headers["x-idempotency-key"] for call in calls] == [f"{run['id']}:0"] * 2
    assert [call.context["invocation_id"] for call in calls] == [run["id"]] * 2
    assert [call.context["attempt"] for call in calls] == [1, 2]
    assert ScheduleRun.objects.filter(schedule_id=run["schedule_id"]).count() == 1


def test_a_long_call_is_waited_for_by_the_process_that_made_it(world, start_worker, fake_runner, temporal_server):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate))
    worker = start_worker()
    eventually(lambda: worker.says("worker.ready"))
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)
    workflow_id = world.api("GET", f"runs/{run['id']}")["workflow_id"]
    eventually(lambda: asyncio.run(waits_in_hand(temporal_server, workflow_id)))

    gate.set()

    finished = world.finished_run(run["id"])
    assert (finished["status"], finished["attempts"]) == ("succeeded", 1)
    assert len(fake_runner.calls[world.path]) == 1


def test_more_long_calls_than_places_are_each_made_once(world, start_worker, fake_runner):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate))
    worker = start_worker(WORKER_MAX_CONCURRENT_RUNS="2")
    eventually(lambda: worker.says("worker.ready"))
    runs = [world.run_now(world.create()) for _ in range(4)]
    fake_runner.wait_for_calls(world.path, 2)
    # Longer than the engine offers a call in hand to the process that has it.
    handed_over = time.monotonic() + 13
    eventually(lambda: time.monotonic() > handed_over)
    assert len(fake_runner.calls[world.path]) == 2

    gate.set()

    assert {world.finished_run(run["id"])["status"] for run in runs} == {"succeeded"}
    keys = [call.headers["x-idempotency-key"] for call in fake_runner.calls[world.path]]
    assert len(keys) == len(set(keys)) == 4


@pytest.mark.parametrize("phase", ["local", "in hand"])
def test_a_cancel_aborts_the_call_in_every_phase(world, start_worker, fake_runner, temporal_server, phase):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate), answers())
    worker = start_worker()
    eventually(lambda: worker.says("worker.ready"))
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)
    if phase == "in hand":
        workflow_id = world.api("GET", f"runs/{run['id']}")["workflow_id"]
        eventually(lambda: asyncio.run(waits_in_hand(temporal_server, workflow_id)))

    world.api("POST", f"runs/{run['id']}/cancel", expect=202)

    ended = world.finished_run(run["id"])
    assert ended["status"] == "cancelled"
    assert [attempt["outcome"] for attempt in ended["attempt_log"]] == ["aborted"]
    gate.set()
    assert world.finished_run(world.run_now({"id": run["schedule_id"]})["id"])["status"] == "succeeded"


def test_sigterm_lets_a_call_in_flight_finish(world, start_worker, fake_runner):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate))
    worker = start_worker()
    eventually(lambda: worker.says("worker.ready"))
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)

    worker.popen.send_signal(signal.SIGTERM)
    eventually(lambda: worker.says("worker.draining"))
    gate.set()

    assert worker.popen.wait(30) == 0
    assert world.finished_run(run["id"])["status"] == "succeeded"
    assert len(fake_runner.calls[world.path]) == 1


def test_a_second_sigterm_stops_now(world, start_worker, fake_runner):
    fake_runner.script(world.path, hangs())
    worker = start_worker()
    eventually(lambda: worker.says("worker.ready"))
    world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)

    worker.popen.send_signal(signal.SIGTERM)
    eventually(lambda: worker.says("worker.draining"))
    worker.popen.send_signal(signal.SIGTERM)

    assert worker.popen.wait(5) == 130


def test_a_worker_that_is_started_before_temporal_waits_and_says_so(database, worker_environment, tmp_path):
    port = embedded.free_port()
    environment = worker_environment | {"TEMPORAL_ADDRESS": f"127.0.0.1:{port}"}
    worker = processes.start_worker(environment=environment, log_file=tmp_path / "worker.log")
    try:
        eventually(lambda: worker.says("worker.waiting_for_temporal"))
        assert worker.popen.poll() is None
        with embedded.running_temporal(port=port):
            eventually(lambda: worker.says("worker.ready"))
            assert worker.stop() == 0
    finally:
        if worker.popen.poll() is None:
            worker.kill()


def test_a_waiting_worker_stops_when_asked(database, worker_environment, tmp_path):
    environment = worker_environment | {"TEMPORAL_ADDRESS": f"127.0.0.1:{embedded.free_port()}"}
    worker = processes.start_worker(environment=environment, log_file=tmp_path / "worker.log")
    eventually(lambda: worker.says("worker.waiting_for_temporal"))

    assert worker.stop(seconds=10) == 0


def test_postgresql_restarted_under_a_running_worker_loses_nothing(
    world, start_worker, fake_runner, postgres_directory
):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate), answers())
    worker = start_worker()
    eventually(lambda: worker.says("worker.ready"))
    in_flight, next_one = world.create(name="in flight"), world.create(name="next")
    run = world.run_now(in_flight)
    fake_runner.wait_for_calls(world.path, 1)

    connection.close()
    embedded.restart_postgres(postgres_directory)
    gate.set()

    assert world.finished_run(run["id"])["status"] == "succeeded"
    assert len(fake_runner.calls[world.path]) == 1
    assert world.finished_run(world.run_now(next_one)["id"])["status"] == "succeeded"


def test_a_cancelled_workflow_ends_its_run_and_aborts_the_call(world, start_worker, fake_runner, temporal_server):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate))
    worker = start_worker()
    eventually(lambda: worker.says("worker.ready"))
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)
    shown = world.api("GET", f"runs/{run['id']}")

    cli = embedded.temporal_executable()
    command = [cli, "workflow", "cancel", "--address", temporal_server, "--workflow-id", shown["workflow_id"]]
    subprocess.run(command, check=True, capture_output=True, timeout=30)

    finished = world.finished_run(run["id"])
    gate.set()
    assert finished["status"] == "cancelled"
    assert world.api("GET", f"schedules/{run['schedule_id']}")["last_run_status"] == "cancelled"
