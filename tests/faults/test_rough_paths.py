"""Slow and resetting ways to each dependency, answers that get lost on the way, and a database that restarts."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from scheduler_project import embedded
from tests.support.rough_path import RoughPath
from tests.support.waiting import eventually
from workflows import names

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def temporal_path(platform):
    path = RoughPath(platform.temporal_address)
    platform.web.stop()
    platform.start_web(TEMPORAL_ADDRESS=path.address)
    yield path
    path.down()


def test_a_slow_temporal_costs_callers_nothing_and_loses_nothing(platform, temporal_path):
    platform.start_worker()
    temporal_path.delay_seconds = 3.0
    for number in range(20):
        began = time.monotonic()
        platform.create(name=str(number))
        assert time.monotonic() - began < 2
    temporal_path.delay_seconds = 0.0

    eventually(lambda: platform.status()["sync"]["oldest_seconds"] == 0, seconds=100)
    platform.assert_equal()


def test_a_temporal_that_cuts_answers_short_loses_nothing(platform, temporal_path):
    platform.start_worker()
    temporal_path.pieces_until_reset = 3
    schedules = [platform.create(name=str(number)) for number in range(20)]
    for schedule in schedules[:5]:
        platform.host("delete", scheduleId=schedule)
    temporal_path.pieces_until_reset = None

    eventually(lambda: platform.status()["sync"]["oldest_seconds"] == 0, seconds=100)
    platform.assert_equal()
    assert len(platform.rows()) == 15


def test_a_worker_asks_a_slow_temporal_for_its_system_schedules_less_and_less_often(platform):
    path = RoughPath(platform.temporal_address)
    path.delay_seconds = 1.2  # to and fro takes longer than a call may
    platform.start_worker(TEMPORAL_ADDRESS=path.address)
    for seconds in (2, 4, 8):
        eventually(lambda seconds=seconds: platform.worker.says(f'"again_in_seconds": {seconds}'))
    assert names.convergence_schedule_id(task_queue="faults") not in platform.cli("schedule", "list")

    path.mend()

    eventually(lambda: names.convergence_schedule_id(task_queue="faults") in platform.cli("schedule", "list"))
    path.down()


@pytest.fixture
def database_path(platform):
    """The way to PostgreSQL that the web process takes."""
    path = RoughPath(platform.database_socket)
    platform.web.stop()
    platform.start_web(DATABASE_URL=f"postgresql://postgres@{path.address}/{platform.name}")
    yield path
    path.mend()
    path.down()


def test_a_process_that_is_killed_between_the_call_and_its_stamp_leaves_work_for_the_next(platform):
    path = RoughPath(platform.temporal_address)
    platform.web.stop()
    platform.start_web(workers=1, TEMPORAL_ADDRESS=path.address)
    platform.create(name="before")
    eventually(lambda: platform.unsynced() == 0)

    path.keeps_answers = True
    lost = platform.create(name="after")
    eventually(lambda: f"extsched:{platform.install_id}:{lost}" in platform.mirrors_ids())
    platform.web.kill_group()
    path.down()
    assert platform.unsynced() == 1, "the answer did not get lost"

    platform.start_web()
    status, seen, _ = platform.reconcile()
    assert (status, seen["mirrors written"]) == (0, 1)
    platform.assert_equal()


@pytest.fixture
def runner_path(platform, fake_runner):
    """The way to the runner that the worker takes."""
    path = RoughPath(fake_runner.url.removeprefix("http://"))
    platform.start_worker(RUNNER_BASE_URL=f"http://{path.address}")
    yield path
    path.mend()
    path.down()


def test_a_slow_way_to_the_runner_delays_a_run_and_calls_once(platform, runner_path, fake_runner):
    schedule = platform.create()
    runner_path.delay_seconds = 2.0

    assert platform.finished_run(platform.run_now(schedule)) == ("succeeded", 1)
    assert len(platform.calls(fake_runner)) == 1


def test_a_way_to_the_runner_that_resets_costs_attempts_and_no_run(platform, runner_path, fake_runner):
    schedule = platform.create()
    runner_path.pieces_until_reset = 0
    run = platform.run_now(schedule)
    eventually(lambda: runner_path.reset)
    runner_path.mend()

    status, attempts = platform.finished_run(run)
    assert status == "succeeded"
    assert attempts >= 2
    # Whatever was repeated is told apart by nothing: it is the same call.
    assert len({call.headers["x-idempotency-key"] for call in platform.calls(fake_runner)}) == 1


def test_a_worker_whose_ways_are_slow_and_cut_connections_loses_no_run(platform, fake_runner):
    temporal_way, database_way = RoughPath(platform.temporal_address), RoughPath(platform.database_socket)
    schedules = [platform.create(name=str(number)) for number in range(8)]
    platform.assert_equal()
    platform.start_worker(
        TEMPORAL_ADDRESS=temporal_way.address,
        DATABASE_URL=f"postgresql://postgres@{database_way.address}/{platform.name}",
        RUNNER_BASE_URL=fake_runner.url,
    )
    for way in (temporal_way, database_way):
        way.delay_seconds, way.pieces_until_reset = 0.02, 20
    runs = [platform.run_now(schedule) for schedule in schedules[:4]]
    eventually(lambda: temporal_way.reset or database_way.reset)
    runs += [platform.run_now(schedule) for schedule in schedules[4:]]
    for way in (temporal_way, database_way):
        way.mend()

    assert {platform.finished_run(run)[0] for run in runs} == {"succeeded"}
    keys = [call.headers["x-idempotency-key"] for call in platform.calls(fake_runner)]
    assert set(keys) == {f"{run}:0" for run in runs}
    for way in (temporal_way, database_way):
        way.down()


def test_a_slow_database_slows_callers_down_and_loses_nothing(platform, database_path):
    database_path.delay_seconds = 0.02
    schedules = [platform.create(name=str(number)) for number in range(10)]
    database_path.delay_seconds = 0.2

    # Before gunicorn kills what has not ended by itself, which is after thirty seconds (its setting graceful_timeout).
    assert platform.web.stop(seconds=28) == 0, "what waits to be pushed must not keep the process from ending"
    platform.start_web()
    status, _, said = platform.reconcile()
    assert status == 0, said
    platform.assert_equal()
    assert len(platform.rows()) == len(schedules)


def test_a_database_that_cuts_answers_short_keeps_every_acknowledged_write(platform, database_path):
    acknowledged, refused = [], []
    database_path.pieces_until_reset = 40
    for number in range(60):
        try:
            acknowledged.append(platform.create(name=str(number)))
        except (httpx.HTTPStatusError, httpx.TransportError) as error:
            refused.append(getattr(getattr(error, "response", None), "status_code", None))
    database_path.mend()

    assert acknowledged
    assert refused
    assert set(refused) <= {503}
    status, _, said = platform.reconcile()
    assert status == 0, said
    platform.assert_equal()
    assert {mirror.rsplit(":", 1)[1] for mirror in platform.rows()} >= set(acknowledged)


def test_a_database_that_restarts_under_load_keeps_every_acknowledged_write(restartable):
    platform, postgres_directory = restartable
    acknowledged, refused = [], []

    def create(number):
        try:
            acknowledged.append(platform.create(name=str(number)))
        except (httpx.HTTPStatusError, httpx.TransportError) as error:
            refused.append(getattr(getattr(error, "response", None), "status_code", None))

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(create, number) for number in range(200)]
        eventually(lambda: len(acknowledged) > 20)
        embedded.restart_postgres(postgres_directory)
        for each in running:
            each.result()

    assert set(refused) <= {503}
    status, _, said = platform.reconcile()
    assert status == 0, said
    platform.assert_equal()
    assert {mirror.rsplit(":", 1)[1] for mirror in platform.rows()} >= set(acknowledged)
