"""Mirrors that somebody deleted, edited, paused, unpaused or left over with the real ``temporal`` command."""

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def mirror_of(platform, schedule_id):
    return f"extsched:{platform.install_id}:{schedule_id}"


def test_every_hand_edit_is_found_and_repaired_and_nobody_elses_is_touched(platform):
    kept, deleted, edited, unpaused, moved = (platform.create(name=name) for name in "abcde")
    platform.host("update", scheduleId=unpaused, enabled=False)
    platform.assert_equal()

    platform.cli("schedule", "delete", "--schedule-id", mirror_of(platform, deleted))
    platform.cli(
        *("schedule", "update", "--schedule-id", mirror_of(platform, edited), "--cron", "1 1 * * *"),
        *("--workflow-id", "w", "--type", "RunSchedule", "--task-queue", "faults"),
    )
    platform.cli("schedule", "toggle", "--unpause", "--schedule-id", mirror_of(platform, unpaused), "--reason", "x")
    platform.cli(
        *("schedule", "update", "--schedule-id", mirror_of(platform, moved), "--calendar", '{"hour":"4","minute":"0"}'),
        *("--workflow-id", "w", "--type", "RunSchedule", "--task-queue", "elsewhere"),
    )

    status, seen, _ = platform.reconcile("--dry-run")
    assert status == 1
    assert (seen["mirrors missing"], seen["mirrors edited"], seen["mirrors unpaused"]) == (1, 2, 1)
    assert mirror_of(platform, deleted) not in platform.mirrors_ids()

    status, seen, said = platform.reconcile()
    assert (status, seen["repaired"]) == (0, 4), said
    platform.assert_equal()
    platform.assert_decoys_untouched()
    status, seen, _ = platform.reconcile()
    assert (status, seen["repaired"], seen["rows compared"]) == (0, 0, 5)
    with psycopg.connect(platform.database_url) as connection:
        events = connection.execute(
            "SELECT subject_id::text, before->'drift' FROM schedules_auditevent WHERE action = 'mirror.repaired'"
        ).fetchall()
    assert {subject for subject, _ in events} == {deleted, edited, unpaused, moved}
    assert kept not in dict(events)


def test_the_quarters_pass_finds_hand_edits_without_a_person(platform):
    deleted, edited, renamed = (platform.create(name=name) for name in "abc")
    platform.start_worker()
    system = "extsched-system:compare:faults"
    eventually(lambda: system in platform.cli("schedule", "list"))
    # Its own quarter must not come between the edits and the trigger.
    platform.cli("schedule", "toggle", "--pause", "--schedule-id", system, "--reason", "tests")
    platform.assert_equal()
    platform.cli("schedule", "delete", "--schedule-id", mirror_of(platform, deleted))
    platform.change_by_hand(mirror_of(platform, edited), "edit")
    platform.change_by_hand(mirror_of(platform, renamed), "rename")

    platform.cli("schedule", "trigger", "--schedule-id", system)  # instead of a quarter of an hour

    eventually(lambda: platform.status()["comparison"])
    platform.assert_equal()
    assert platform.status()["comparison"]["drift"] == {"missing": 1, "edited": 2}
    found = platform.cli("schedule", "list", "--query", f"TenantId = '{platform.tenant_id}'")
    assert mirror_of(platform, renamed) in found


def test_the_quarters_pass_refuses_a_mass_and_says_so(platform):
    for number in range(12):
        platform.create(name=str(number))
    platform.assert_equal()
    platform.wipe_temporal()
    platform.start_worker()
    system = "extsched-system:compare:faults"
    eventually(lambda: system in platform.cli("schedule", "list"))

    platform.cli("schedule", "trigger", "--schedule-id", system)

    eventually(lambda: platform.status()["comparison"])
    assert "is this the right namespace?" in platform.status()["comparison"]["refused"]
    assert platform.mirrors() == {}


def test_an_operators_hold_is_kept_shown_and_lifted(platform):
    schedule = platform.create()
    platform.assert_equal()
    mirror = mirror_of(platform, schedule)
    platform.cli("schedule", "toggle", "--pause", "--schedule-id", mirror, "--reason", "the vendor asked")

    status, seen, _ = platform.reconcile()
    assert (status, seen["held by operators"], seen["repaired"]) == (0, 1, 0)
    platform.host("update", scheduleId=schedule, cron="30 5 * * *")  # an edit meanwhile keeps it

    def shown():
        ((since, note, generation, synced),) = rows(platform)
        assert generation == synced
        return since is not None and note == "the vendor asked"

    eventually(shown)
    paused, words, _ = platform.mirrors()[mirror]
    assert (paused, words) == (True, "30 5 * * * in UTC")
    assert platform.status()["sync"]["held"] == 1

    platform.lift_hold(schedule)
    eventually(lambda: rows(platform)[0][0] is None and not platform.mirrors()[mirror][0])
    platform.assert_equal()

    platform.cli("schedule", "toggle", "--pause", "--schedule-id", mirror, "--reason", "again")
    platform.reconcile()
    assert rows(platform)[0][1] == "again"
    platform.cli("schedule", "toggle", "--unpause", "--schedule-id", mirror, "--reason", "done")
    platform.reconcile()
    assert rows(platform)[0][0] is None


def test_a_hold_outlives_its_mirror_a_refusal_and_a_lost_server(platform):
    held, *_ = [platform.create(name=str(number)) for number in range(12)]
    platform.assert_equal()
    mirror = mirror_of(platform, held)
    platform.cli("schedule", "toggle", "--pause", "--schedule-id", mirror, "--reason", "the vendor asked")
    platform.reconcile()

    platform.cli("schedule", "delete", "--schedule-id", mirror)
    assert platform.reconcile()[0] == 0
    assert platform.mirrors()[mirror][0]

    platform.wipe_temporal()
    assert platform.reconcile()[0] == 1
    assert platform.status()["sync"]["held"] == 1
    assert platform.reconcile("--force")[0] == 0
    assert platform.mirrors()[mirror][0]
    ((note,),) = platform.execute("SELECT held_note FROM schedules_schedule WHERE held_since IS NOT NULL")
    assert note == "the vendor asked"


def test_limits_and_names_that_the_action_was_given_by_hand_are_taken_back(platform):
    schedule = platform.create()
    platform.assert_equal()
    platform.change_by_hand(mirror_of(platform, schedule), "limit")

    status, seen, _ = platform.reconcile()

    assert (status, seen["mirrors edited"], seen["repaired"]) == (0, 1, 1)
    assert platform.reconcile()[1]["mirrors edited"] == 0


def test_copies_with_our_mark_go_and_the_mirror_that_they_copy_stays(platform):
    schedule = platform.create()
    platform.assert_equal()
    ((mark,),) = platform.execute("SELECT mark::text FROM schedules_deployment")
    for copy in (
        mirror_of(platform, schedule).upper().replace("EXTSCHED", "extsched"),
        f"{mirror_of(platform, schedule)}-copy",
    ):
        platform.cli(
            *("schedule", "create", "--schedule-id", copy, "--interval", "300d", "--workflow-id", "w"),
            *("--type", "RunSchedule", "--task-queue", "faults"),
            *("--schedule-search-attribute", f'ScheduleDeployment="{mark}"'),
        )

    status, seen, _ = platform.reconcile()

    assert (status, seen["mirrors orphaned"], seen["repaired"]) == (0, 2, 2)
    platform.assert_equal()


def rows(platform):
    with psycopg.connect(platform.database_url) as connection:
        return connection.execute(
            "SELECT held_since, held_note, generation, synced_generation FROM schedules_schedule"
        ).fetchall()


def test_a_mirror_without_a_row_goes_at_its_second_sighting(platform):
    kept = [platform.create() for _ in range(3)]
    orphan = platform.create()
    platform.assert_equal()
    with psycopg.connect(platform.database_url) as connection:  # as a database of yesterday would have it
        connection.execute("DELETE FROM schedules_schedule WHERE id = %s", [orphan])

    ((mark,),) = platform.execute("SELECT mark::text FROM schedules_deployment")
    platform.cli(  # a copy that somebody made of a mirror
        *("schedule", "create", "--schedule-id", mirror_of(platform, uuid.uuid4()), "--interval", "300d"),
        *("--workflow-id", "w", "--type", "RunSchedule", "--task-queue", "faults"),
        *("--schedule-search-attribute", f'ScheduleDeployment="{mark}"'),
    )
    began = datetime.now(UTC)

    status, seen, _ = platform.reconcile()

    assert (status, seen["mirrors orphaned"], seen["repaired"]) == (0, 2, 2)
    assert datetime.now(UTC) - began > timedelta(seconds=10)  # between the two sightings
    platform.assert_equal()
    assert len(platform.rows()) == len(kept)


def test_a_mass_of_orphans_is_refused_until_it_is_forced(platform):
    schedules = [platform.create() for _ in range(30)]
    platform.assert_equal()
    with psycopg.connect(platform.database_url) as connection:
        connection.execute("DELETE FROM schedules_schedule WHERE id = ANY(%s)", [schedules[:20]])

    for _ in range(2):
        status, seen, said = platform.reconcile()
        assert (status, seen["mirrors orphaned"], seen["repaired"]) == (1, 20, 0)
        assert "is this the right database?" in said
        assert len(platform.mirrors()) == 30
    assert "right database" in platform.status()["comparison"]["refused"]

    status, seen, said = platform.reconcile("--force")
    assert (status, seen["repaired"]) == (0, 20)
    assert "Refused" not in said
    platform.assert_equal()


def test_another_deployments_mirrors_are_none_of_our_business(platform):
    platform.create()
    platform.assert_equal()
    with psycopg.connect(platform.database_url) as connection:
        connection.execute("UPDATE schedules_deployment SET mark = gen_random_uuid()")
        connection.execute("DELETE FROM schedules_schedule")

    status, seen, _ = platform.reconcile()

    assert (status, seen["mirrors orphaned"]) == (0, 0)
    assert len(platform.mirrors()) == 1
