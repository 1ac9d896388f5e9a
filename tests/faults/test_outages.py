"""Services that stop, come back, or come back with nothing."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import processes
from tests.support.waiting import eventually
from workflows import names

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_what_was_written_while_temporal_was_stopped_is_there_when_it_is_back(platform):
    platform.start_worker()
    updated = [platform.create(name=f"u{number}") for number in range(100)]
    deleted = [platform.create(name=f"d{number}") for number in range(100)]
    platform.assert_equal()

    platform.stop_temporal()
    slowest = 0.0
    for number in range(100):
        began = time.monotonic()
        platform.create(name=f"c{number}")
        platform.host("update", scheduleId=updated[number], cron="30 6 * * *")
        platform.host("delete", scheduleId=deleted[number])
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2
    assert platform.status()["sync"]["pending"] == 200
    assert platform.status()["sync"]["removals"] == 100
    assert platform.status()["checks"]["temporal"] != "ok"
    assert platform.get("/readyz").status_code == 200
    platform.start_temporal()

    # Without a person: the web process tries again, and the worker's minute comes.
    eventually(lambda: platform.status()["sync"]["oldest_seconds"] == 0, seconds=100)
    platform.assert_equal()
    assert len(platform.rows()) == 200


def test_a_lost_temporal_database_is_refused_and_then_rebuilt(platform):
    for number in range(120):
        platform.create(name=str(number), enabled=number % 3 > 0)
    platform.assert_equal()

    platform.wipe_temporal()
    status, seen, said = platform.reconcile()
    assert (status, seen["mirrors missing"], seen["repaired"]) == (1, 120, 0)
    assert "is this the right namespace?" in said
    assert platform.mirrors() == {}
    metrics = platform.get("/metrics", authorization="Bearer metrics-token").text
    assert "schedule_comparison_refused 1.0" in metrics

    status, seen, _ = platform.reconcile("--force")
    assert (status, seen["repaired"]) == (0, 120)
    platform.assert_equal()
    assert "schedule_comparison_refused 0.0" in platform.get("/metrics", authorization="Bearer metrics-token").text


def test_a_web_process_that_is_killed_between_commit_and_push_leaves_nothing_behind(platform):
    platform.web.stop()
    platform.start_web(TEMPORAL_ADDRESS="127.0.0.1:1")  # its pushes go nowhere
    for number in range(10):
        platform.create(name=str(number))
    platform.web.kill_group()
    assert platform.mirrors() == {}

    platform.start_worker()

    eventually(lambda: len(platform.mirrors()) == 10, seconds=100)
    platform.assert_equal()


def test_a_push_that_was_killed_before_its_stamp_is_repeated(platform):
    schedules = [platform.create(name=str(number)) for number in range(5)]
    platform.assert_equal()
    platform.web.kill_group()
    platform.unstamp()

    status, seen, _ = platform.reconcile()

    assert (status, seen["mirrors written"]) == (0, len(schedules))
    platform.assert_equal()


def test_two_reconcilers_at_once_do_no_harm(platform):
    schedules = [platform.create(name=str(number)) for number in range(20)]
    platform.assert_equal()
    for schedule in schedules[:4]:
        platform.cli("schedule", "delete", "--schedule-id", f"extsched:{platform.install_id}:{schedule}")

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: platform.reconcile(waits=False), range(2)))

    assert sum(seen["repaired"] for _, seen, _ in results) == 4
    platform.assert_equal()


def test_a_sweep_whose_worker_is_killed_is_finished_by_the_next(platform):
    platform.web.stop()  # which would push them
    platform.flood(rows=300)
    platform.start_worker()
    # Instead of waiting for the minute. The worker installs its sweep beside its other work.
    sweep = names.convergence_schedule_id(task_queue="faults")
    eventually(lambda: sweep in platform.cli("schedule", "list"))
    platform.cli("schedule", "trigger", "--schedule-id", sweep)
    eventually(lambda: platform.unsynced() < 295, seconds=80)
    platform.worker.kill()
    assert platform.unsynced() > 50, "it was done before it was killed"

    platform.start_worker()

    # The engine gives a pass up after 20 seconds without a sign of life, some ten later a worker hears of it, and the
    # next begins with the minute.
    eventually(lambda: platform.unsynced() == 0, seconds=240)
    platform.assert_equal()


def test_a_row_that_cannot_be_pushed_keeps_nobody_waiting_and_says_why(platform):
    schedules = [platform.create(name=str(number)) for number in range(6)]
    platform.assert_equal()
    platform.web.stop()
    platform.poison(schedules[0])
    for schedule in schedules[1:]:
        platform.dirty(schedule)

    status, seen, _ = platform.reconcile()

    assert (status, seen["failed, see the log"], seen["mirrors written"], seen["still unsynced"]) == (1, 1, 5, 1)
    assert platform.sync_error(schedules[0]) == "The mirror cannot be made, see the log"
    ((waits,),) = platform.execute("SELECT push_after > now() FROM schedules_schedule WHERE push_failures > 0")
    assert waits, "the minute's pass is to leave it alone for a while"
    status, seen, _ = platform.reconcile()  # somebody wants to know now
    assert (status, seen["failed, see the log"], seen["still unsynced"]) == (1, 1, 1)


def test_one_tenants_many_changes_do_not_keep_anothers_waiting(platform):
    platform.web.stop()
    platform.flood(rows=3000)
    other = platform.flood(rows=3, tenant="other")

    process = subprocess.Popen(
        [sys.executable, "manage.py", "reconcile"],
        env=platform.environment,
        cwd=processes.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: platform.synced(other) == 3)
        assert platform.unsynced() > 1000, "the other tenant's turn came after the many, not among them"
    finally:
        process.kill()
        process.wait()
