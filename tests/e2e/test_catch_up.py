"""What an outage swallowed is made up for as the schedule's policy says: a real server that is stopped and started."""

import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from scheduler_project import embedded
from schedules import cron, sweep, temporal, temporal_bridge
from tests.support import processes
from tests.support.waiting import eventually
from workflows import names
from workflows.payloads import RunRequest

pytestmark = pytest.mark.e2e


@pytest.fixture
def engine(tmp_path, monkeypatch, database):
    """A Temporal server of this test's own, which keeps its data and can be stopped."""
    port = embedded.free_port()
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{port}")
    forget_client()
    yield lambda: embedded.running_temporal(port=port, database_file=tmp_path / "temporal.db")
    forget_client()


def forget_client():
    """Let the next call connect to what the environment says then."""
    temporal_bridge.bridge._client = None
    temporal_bridge.bridge.search_attributes_known = False


@pytest.fixture
def start_worker(worker_environment, settings, tmp_path):
    settings.TEMPORAL_TASK_QUEUE = f"test-{uuid.uuid4()}"
    started = []

    def start(address):
        process = processes.start_worker(
            environment=worker_environment
            | {"TEMPORAL_ADDRESS": address, "TEMPORAL_TASK_QUEUE": settings.TEMPORAL_TASK_QUEUE},
            log_file=tmp_path / f"worker-{len(started)}.log",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.kill()


def test_an_outage_of_the_server_is_made_up_for_as_each_policy_says(world, engine, start_worker, fake_runner):
    schedules = {}
    with engine() as address:
        worker = start_worker(address)
        eventually(lambda: worker.says("worker.ready"))
        for policy in ("none", "latest", "all"):
            schedules[policy] = world.create(cron="*/5 * * * *", timezone="UTC", catch_up_policy=policy)
    # The server is down, and was so for half an hour as far as the schedules can tell.
    since = datetime.now(UTC) - timedelta(minutes=33)
    for schedule in schedules.values():
        world.owe_since(schedule, since)

    with engine():

        def everything_ended():
            sweep.converge_unsynced()
            runs = {policy: world.runs(schedule) for policy, schedule in schedules.items()}
            assert all(runs.values())
            assert all(run.finished_at for found in runs.values() for run in found)
            return runs

        runs = eventually(everything_ended, seconds=90)
        worker.stop(seconds=60)

    expression, zone = cron.parse("*/5 * * * *"), cron.parse_zone("UTC")
    for found in runs.values():
        until = found[-1].slot
        assert [run.slot for run in found] == list(cron.slots_after(expression, zone, after=since, until=until))
    late = {
        policy: [run.status for run in found if run.slot < since + timedelta(minutes=25)]
        for policy, found in runs.items()
    }
    assert set(late["none"]) == {"missed"}
    assert set(late["latest"]) == {"superseded"}
    assert set(late["all"]) == {"succeeded"}
    assert [run.status for run in runs["latest"]].count("succeeded") in {1, 2}
    ran = [run for run in runs["all"] if run.started_at]
    for earlier, later in pairwise(ran):
        assert later.started_at >= earlier.finished_at


def test_an_outage_of_the_worker_is_made_up_for_by_the_fires_that_waited(world, worker, fake_runner):
    """The engine delivered every slot, and nobody was there to take them: they all arrive at once, and late."""
    schedule = world.create(cron="*/5 * * * *", timezone="UTC", catch_up_policy="all")
    since = datetime.now(UTC) - timedelta(minutes=33)
    world.owe_since(schedule, since)
    expression, zone = cron.parse("*/5 * * * *"), cron.parse_zone("UTC")
    slots = list(cron.slots_after(expression, zone, after=since, until=datetime.now(UTC)))

    for slot in reversed(slots):
        request = RunRequest(
            tenant_id=str(world.tenant_id),
            install_id=str(world.install_id),
            schedule_id=schedule["id"],
            invocation_id=str(names.slot_invocation_id(schedule_id=schedule["id"], slot=slot)),
            slot=slot.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        temporal.start_run(request, extension_id=world.registry_id)

    def all_ended():
        sweep.converge_unsynced()
        runs = world.runs(schedule)
        assert len(runs) >= len(slots)
        assert all(run.finished_at for run in runs)
        return runs

    runs = eventually(all_ended)
    assert {run.status for run in runs} == {"succeeded"}
    ran = [call.context["scheduled_for"] for call in fake_runner.calls[world.path]]
    assert ran == sorted(ran)
    assert len(ran) == len(set(ran)) == len(runs)
