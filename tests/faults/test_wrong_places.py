"""A namespace that is not there, one that is another's, and a comparison that somebody else is at."""

import psycopg
import pytest

from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


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
        status, _, said = platform.reconcile("--force", waits=False)
    assert status == 1
    assert "nothing was compared" in said
    assert platform.reconcile()[0] == 0


def test_a_pass_that_somebody_paused_is_left_alone_and_told(platform):
    def passes():
        return {name: each["schedule"] for name, each in platform.status()["passes"].items()}

    assert set(passes().values()) == {"missing"}
    platform.start_worker()
    eventually(lambda: set(passes().values()) == {"ok"})

    platform.cli("schedule", "toggle", "--pause", "--schedule-id", "extsched-system:compare:faults", "--reason", "x")
    platform.change_by_hand("extsched-system:converge:faults", "fire_once")
    platform.worker.kill()
    platform.start_worker()  # which sees to its schedules first

    eventually(lambda: platform.worker.says("worker.system_schedules_paused"))
    assert passes() == {"sweep": "ok", "comparison": "paused", "purge": "ok"}
    # A limit would end the passes for good, and is nobody's hold.
    assert "limitedActions" not in platform.cli(
        *("schedule", "describe", "--schedule-id", "extsched-system:converge:faults", "-o", "json")
    )
    eventually(lambda: platform.status()["passes"]["sweep"]["finished_at"], seconds=150)
    metrics = platform.get("/metrics", authorization="Bearer metrics-token").text
    assert 'schedule_pass_timestamp_seconds{name="sweep"} 1' in metrics


def test_what_was_refused_for_the_namespaces_sake_is_made_up_for_at_once(platform):
    platform.web.stop()
    platform.start_web(TEMPORAL_NAMESPACE="typo")
    schedules = [platform.create(name=str(number)) for number in range(12)]
    eventually(lambda: platform.web.says("refuses this deployment"))
    assert {platform.sync_error(schedule) for schedule in schedules} == {""}
    platform.web.stop()
    platform.start_web()

    assert platform.reconcile()[0] == 0
    platform.assert_equal()


def test_a_release_that_renews_every_mirror_makes_none_in_a_wrong_namespace(platform, elsewhere):
    platform.cli("operator", "namespace", "create", "--namespace", "other")
    platform.execute("UPDATE schedules_schedule SET calendar_rules = 'of another release'")
    platform.extra_environment = {"TEMPORAL_NAMESPACE": "other"}

    status, seen, said = platform.reconcile()

    assert (status, seen["mirrors written"], seen["mirrors missing"], seen["repaired"]) == (1, 0, 12, 0)
    assert "is this the right namespace?" in said
    assert "extsched:" not in platform.cli("schedule", "list", "--namespace", "other")
    platform.extra_environment = {}
    assert platform.reconcile()[0] == 0
    platform.assert_equal()


def test_a_comparison_that_an_outage_breaks_off_settles_nothing(platform, elsewhere):
    platform.wipe_temporal()
    assert platform.reconcile()[0] == 1
    before = platform.status()["comparison"]
    assert before["refused"]
    platform.stop_temporal()

    assert platform.reconcile()[0] == 1

    assert platform.status()["comparison"] == before
    platform.start_temporal()
