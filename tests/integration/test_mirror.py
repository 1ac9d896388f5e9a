"""A schedule's mirror in Temporal follows its row."""

import asyncio
import uuid
from datetime import timedelta

from temporalio.client import Client, ScheduleIntervalSpec, ScheduleUpdate

from schedules import background, convergence, temporal
from schedules.models import MirrorRemoval, Schedule
from tests.support.commands import reconcile
from tests.support.waiting import eventually
from workflows import names


def describe(world, schedule):
    return temporal.describe_mirror(install_id=world.install_id, schedule_id=uuid.UUID(schedule["id"]))


def meaning(description):
    """What a mirror's calendars say that they stand for."""
    return {calendar.comment for calendar in description.schedule.spec.calendars}


def attributes_of(description):
    return {pair.key.name: pair.value for pair in description.typed_search_attributes}


def with_handle(world, schedule, address, action):
    async def run():
        client = await Client.connect(address)
        await action(client.get_schedule_handle(f"extsched:{world.install_id}:{schedule['id']}"))

    asyncio.run(run())


def test_a_created_schedule_is_mirrored_at_once_with_its_attributes(world):
    schedule = world.create(cron="30 4 * * MON-FRI", timezone="Asia/Kolkata")

    assert schedule["sync_state"] == "synced"
    description = describe(world, schedule)
    assert attributes_of(description) == {
        "TenantId": str(world.tenant_id),
        "InstallId": str(world.install_id),
        "ExtensionId": str(world.registry_id),
        "ScheduleId": schedule["id"],
        "RunTrigger": "schedule",
        "ScheduleGeneration": "1",
        "ScheduleDeployment": str(convergence.deployment()),
    }
    spec = description.schedule.spec
    assert spec.calendars[0].comment == "30 4 * * MON-FRI in Asia/Kolkata"
    assert schedule["next_run_at"] == description.info.next_action_times[0].isoformat().replace("+00:00", "Z")


def test_an_update_disable_and_enable_reach_the_mirror(world):
    schedule = world.create()

    world.change(schedule, cron="15 6 * * *", enabled=False)
    description = describe(world, schedule)
    assert description.schedule.state.paused
    assert meaning(description) == {"15 6 * * * in Europe/Berlin"}

    world.change(schedule, enabled=True)
    assert not describe(world, schedule).schedule.state.paused


def test_a_change_that_the_mirror_does_not_show_needs_no_push(world):
    schedule = world.create()

    changed = world.api(
        "PATCH",
        f"schedules/{schedule['id']}",
        {"name": "Nightly", "payload": {"n": 1}, "endpoint": f"GET {world.path}/status"},
        expect=200,
    )

    assert changed["revision"] == 2
    assert Schedule.objects.get(id=schedule["id"]).generation == 1


def test_a_deleted_schedule_takes_its_mirror_along(world):
    schedule = world.create()

    world.api("DELETE", f"schedules/{schedule['id']}", expect=204)

    assert eventually(lambda: describe(world, schedule) is None)
    assert eventually(lambda: not MirrorRemoval.objects.filter(id=schedule["id"]).exists())


def test_disabling_an_install_pauses_its_mirrors_and_keeps_its_schedules(world):
    schedules = [world.create(name=f"number {number}") for number in range(3)]

    world.put_install(is_enabled=False)

    for schedule in schedules:
        eventually(lambda schedule=schedule: describe(world, schedule).schedule.state.paused)
        assert world.api("GET", f"schedules/{schedule['id']}")["enabled"]

    world.put_install(is_enabled=True)

    for schedule in schedules:
        eventually(lambda schedule=schedule: not describe(world, schedule).schedule.state.paused)


def test_deleting_a_tenant_leaves_neither_rows_nor_mirrors(world):
    schedules = [world.create(name=f"number {number}") for number in range(3)]

    world.registry("DELETE", f"tenants/{world.tenant_id}")
    world.registry("DELETE", f"tenants/{world.tenant_id}")

    assert not Schedule.objects.filter(tenant_id=world.tenant_id).exists()
    for schedule in schedules:
        eventually(lambda schedule=schedule: describe(world, schedule) is None)


def test_writes_succeed_while_temporal_is_away_and_reconcile_repairs_all_of_them(world, temporal_proxy):
    changed, deleted = world.create(name="changed"), world.create(name="deleted")
    temporal_proxy.down()
    try:
        created = world.create(sync=False, name="created")
        assert created["sync_state"] == "pending"
        world.api("PATCH", f"schedules/{changed['id']}", {"cron": "45 7 * * *"}, expect=200)
        world.api("DELETE", f"schedules/{deleted['id']}", expect=204)
        background.finish_background_work(timeout_seconds=30)
        status, said = reconcile()
        assert status == 1
        assert "Temporal does not answer" in said
    finally:
        temporal_proxy.up()

    eventually(lambda: reconcile()[0] == 0)

    assert describe(world, created) is not None
    assert meaning(describe(world, changed)) == {"45 7 * * * in Europe/Berlin"}
    assert describe(world, deleted) is None
    assert world.api("GET", f"schedules/{created['id']}")["sync_state"] == "synced"


def test_a_run_asked_for_while_temporal_is_away_is_started_later(world, worker, temporal_proxy, fake_runner):
    schedule = world.create()
    temporal_proxy.down()
    try:
        run = world.run_now(schedule)
        assert run["status"] == "queued"
    finally:
        temporal_proxy.up()

    def started_by_a_sweep():
        reconcile()
        return world.api("GET", f"runs/{run['id']}")["status"] == "succeeded"

    eventually(started_by_a_sweep, every=0.5)
    assert len(fake_runner.calls[world.path]) == 1


def test_the_workers_own_sweep_pushes_what_a_crash_left_unsynced(world, worker, temporal_proxy, temporal_server):
    temporal_proxy.down()
    try:
        schedule = world.create(sync=False)
        # The writer's own push has to give up first, as it would for good in a process that dies.
        background.finish_background_work(timeout_seconds=30)
    finally:
        temporal_proxy.up()
    assert Schedule.objects.get(id=schedule["id"]).sync_state == "pending"

    async def run_the_system_schedule():
        client = await Client.connect(temporal_server)
        system = client.get_schedule_handle(names.convergence_schedule_id(task_queue="extension-schedules"))
        assert (await system.describe()).schedule.spec.intervals[0].every == timedelta(minutes=1)
        await system.trigger()

    asyncio.run(run_the_system_schedule())
    eventually(lambda: Schedule.objects.get(id=schedule["id"]).sync_state == "synced")
    assert describe(world, schedule) is not None


def test_a_vanished_mirror_is_made_again_by_the_next_push(world, temporal_server):
    schedule = world.create()
    with_handle(world, schedule, temporal_server, lambda handle: handle.delete())

    world.change(schedule, cron="1 1 * * *")

    assert meaning(describe(world, schedule)) == {"1 1 * * * in Europe/Berlin"}


def test_a_mirror_edited_by_hand_is_overwritten_whole_and_not_added_to(world, temporal_server):
    schedule = world.create()

    async def edit(handle):
        def add_an_interval(update):
            update.description.schedule.spec.intervals = [ScheduleIntervalSpec(every=timedelta(hours=1))]
            return ScheduleUpdate(schedule=update.description.schedule)

        await handle.update(add_an_interval)

    with_handle(world, schedule, temporal_server, edit)
    world.change(schedule, cron="2 2 * * *")

    spec = describe(world, schedule).schedule.spec
    assert not spec.intervals
    assert {calendar.comment for calendar in spec.calendars} == {"2 2 * * * in Europe/Berlin"}


def test_an_operators_hold_survives_a_push(world, temporal_server):
    schedule = world.create()
    with_handle(world, schedule, temporal_server, lambda handle: handle.pause(note="incident 12"))

    world.change(schedule, cron="3 3 * * *")

    state = describe(world, schedule).schedule.state
    assert state.paused
    assert state.note == "incident 12"


def test_pushing_twice_changes_nothing(world):
    schedule = world.create()
    identity = {"tenant_id": world.tenant_id, "schedule_id": uuid.UUID(schedule["id"])}

    assert convergence.push(**identity) is background.PushOutcome.NOTHING
