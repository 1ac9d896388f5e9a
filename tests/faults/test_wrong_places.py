"""A namespace that is not there, one that is another's, and a comparison that somebody else is at."""

import psycopg
import pytest

from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def elsewhere(platform):
    """Twelve schedules in sync, and the environment of somebody who mistyped the namespace."""
    schedules = [platform.create(name=str(number)) for number in range(12)]
    platform.assert_equal()
    return schedules


def test_a_namespace_that_is_not_there_is_told_and_takes_no_removal_for_done(platform, elsewhere):
    platform.web.stop()
    platform.start_web(TEMPORAL_NAMESPACE="typo")
    for schedule in elsewhere[:5]:
        platform.host("delete", scheduleId=schedule)
    platform.extra_environment = {"TEMPORAL_NAMESPACE": "typo"}
    status, _, said = platform.reconcile()
    assert status == 1
    assert "Namespace typo is not found" in said
    assert "Traceback" not in said
    assert "typo" in platform.status()["comparison"]["refused"]
    assert platform.status()["sync"]["removals"] == 5
    readiness = platform.get("/readyz")
    assert (readiness.status_code, readiness.json()["checks"]["temporal"]) == (200, "the namespace does not exist")

    platform.extra_environment = {}
    assert platform.reconcile()[0] == 0
    platform.assert_equal()
    assert len(platform.rows()) == 7


def test_looking_into_another_namespace_changes_nothing_there_or_here(platform, elsewhere):
    platform.cli("operator", "namespace", "create", "--namespace", "other")
    run = platform.start_endless_run(elsewhere[0])
    platform.extra_environment = {"TEMPORAL_NAMESPACE": "other"}

    status, seen, _ = platform.reconcile("--dry-run")
    assert (status, seen["mirrors missing"]) == (1, 12)
    assert "ScheduleDeployment" not in platform.cli("operator", "search-attribute", "list", "--namespace", "other")
    status, seen, said = platform.reconcile()
    assert (status, seen["repaired"], seen["dead runs ended"]) == (1, 0, 0)
    assert "is this the right namespace?" in said

    platform.extra_environment = {}
    ((state,),) = platform.execute("SELECT status FROM schedules_schedulerun WHERE id = %s", [run])
    assert state == "running"
    platform.assert_equal()


def test_a_comparison_that_somebody_else_is_at_is_no_success(platform, elsewhere):
    with psycopg.connect(platform.database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('comparison', 0))")
        status, _, said = platform.reconcile("--force")
    assert status == 1
    assert "nothing was compared" in said
    assert platform.reconcile()[0] == 0


def test_a_pass_that_somebody_paused_is_left_alone_and_told(platform):
    assert set(platform.status()["passes"].values()) == {"missing"}
    platform.start_worker()
    eventually(lambda: set(platform.status()["passes"].values()) == {"ok"})

    platform.cli("schedule", "toggle", "--pause", "--schedule-id", "extsched-system:compare:faults", "--reason", "x")
    platform.worker.kill()
    platform.start_worker()  # which sees to its schedules first

    eventually(lambda: platform.worker.says("worker.system_schedules_paused"), seconds=30)
    assert platform.status()["passes"] == {"sweep": "ok", "comparison": "paused", "purge": "ok"}
