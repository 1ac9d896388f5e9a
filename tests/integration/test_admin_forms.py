"""The forms of the admin: what is sent twice is done once, and what is done is what was shown."""

import re
import uuid
from datetime import UTC, datetime

import pytest
from django.urls import reverse

from schedules import kill_switches
from schedules.models import ApiEndpoint, AuditEvent, ExtensionInstall, KillSwitch, Schedule, ScheduleRun
from tests.support.expressions import DAILY
from tests.support.people import page
from tests.support.world import ACTOR

NOW = datetime.now(UTC)


def form(world, **changes):
    endpoint = ApiEndpoint.objects.get(version__installs__id=world.install_id, path=world.path)
    members = {"endpoint": str(endpoint.id), "name": "By hand", "cron": DAILY, "enabled": "on"}
    return {"install": str(world.install_id), **members, "timezone": "", "payload": ""} | changes


def text_of(client, name, *arguments, **data):
    return page(client, name, *arguments, **data).content.decode()


def hidden(name, text):
    return re.search(rf'name="{name}" value="([^"]+)"', text).group(1)


def ended_run(world, schedule, **members):
    run = world.queued_run(schedule)
    ScheduleRun.objects.filter(id=run.id).update(status="failed", started_at=NOW, finished_at=NOW, **members)
    return run


def test_a_new_schedule_is_made_once_however_often_its_form_is_sent(administrator, world):
    address = reverse("admin:schedules_schedule_add")
    key = hidden("request_key", text_of(administrator, "schedule_add"))

    first, second = (administrator.post(address, form(world, request_key=key)) for _ in range(2))
    assert (first.status_code, first.url) == (302, second.url)
    assert AuditEvent.objects.filter(tenant_id=world.tenant_id, action="schedule.created").count() == 1

    # Whoever goes back to the form and asks for another one gets another one; who opens it anew is told of the name.
    other = administrator.post(address, form(world, request_key=key, name="Another"))
    assert other.url != first.url
    refused = administrator.post(address, form(world, request_key=str(uuid.uuid4())))
    assert list(refused.context["adminform"].form.errors) == ["name"]
    assert Schedule.objects.filter(tenant_id=world.tenant_id).count() == 2


@pytest.mark.parametrize("name", ["schedule_page", "schedulerun_change"])
def test_a_second_click_on_run_again_is_the_same_run(administrator, world, name):
    schedule = world.create(sync=False)
    run = ended_run(world, schedule)
    shown = text_of(administrator, name, schedule["id"] if name == "schedule_page" else run.id)
    again = {"do": "replay", "request_key": hidden("request_key", shown)}
    address = reverse("admin:schedules_schedulerun_act", args=[run.id])

    first, second = (administrator.post(address, again) for _ in range(2))

    assert first.url == second.url
    assert ScheduleRun.objects.filter(schedule_id=schedule["id"], trigger="replay").count() == 1


def test_a_backfill_runs_what_was_previewed_and_does_so_once(administrator, world):
    schedule = world.create(cron="0 */6 * * *", timezone="UTC", enabled=False, sync=False)
    address = reverse("admin:schedules_schedule_backfill", args=[schedule["id"]])
    wanted = {"start": "2026-01-01T00:00", "end": "2026-01-02T00:00", "one_at_a_time": "on"}
    confirmed = wanted | {"confirmed": "yes"}
    queued = ScheduleRun.objects.filter(schedule_id=schedule["id"])

    shown = administrator.post(address, wanted | {"preview": "yes"}).content.decode()
    assert "4 slots would run" in shown
    # Enter in a field presses the first button.
    assert shown.index('name="preview"') < shown.index('name="confirmed"')
    confirmed |= {name: hidden(name, shown) for name in ("request_key", "previewed")}
    Schedule.objects.filter(id=schedule["id"]).update(cron="0 */3 * * *")
    assert "8 slots would run" in administrator.post(address, confirmed).content.decode()
    Schedule.objects.filter(id=schedule["id"]).update(cron="0 */6 * * *")
    for change in ({"end": "2026-01-03T00:00"}, {"one_at_a_time": ""}, {"previewed": ""}):
        again = administrator.post(address, confirmed | change).content.decode()
        assert "This is not what was previewed before" in again
    assert queued.count() == 0

    for _ in range(2):
        assert administrator.post(address, confirmed).status_code == 302
    assert queued.count() == 4


@pytest.mark.parametrize("kind", ["schedule", "run"])
def test_runs_are_stopped_after_a_question(administrator, viewer, world, kind):
    schedule = world.create(sync=False)
    run = world.queued_run(schedule)
    name, key, do, back = {
        "schedule": ("schedule_act", schedule["id"], "cancel_running", "schedule_page"),
        "run": ("schedulerun_act", run.id, "cancel", "schedulerun_change"),
    }[kind]
    address = reverse(f"admin:schedules_{name}", args=[key])
    page_address = reverse(f"admin:schedules_{back}", args=[key])

    asked = administrator.post(address, {"do": do}).content.decode()
    assert "This cannot be undone" in asked
    assert f'<a href="{page_address}">' in asked.split("<main")[0]  # the way back names it
    assert ScheduleRun.objects.get(id=run.id).status == "queued"
    # Whoever has to sign in first comes back by GET.
    assert administrator.get(address).url == page_address
    assert viewer.post(address, {"do": do, "confirmed": "yes"}).status_code == 403

    administrator.post(address, {"do": do, "confirmed": "yes"})
    assert ScheduleRun.objects.get(id=run.id).status == "cancelled"


def test_a_conflict_is_told_in_the_forms_words_with_who_saved_and_when(administrator, world):
    schedule = world.create(name="Contested")
    world.change(schedule, overlap_policy="queue")
    saved = AuditEvent.objects.get(subject_id=schedule["id"], action="schedule.updated")

    stale = form(world, seen_revision="1", overlap_policy="skip")
    shown = administrator.post(reverse("admin:schedules_schedule_change", args=[schedule["id"]]), stale)

    conflict = shown.context["adminform"].form.conflict
    row = {row.label: (row.mine, row.theirs) for row in conflict.rows}["While a run is in flight"]
    assert row == ("Skip the slot that is due meanwhile", "Queue it until the run has ended")
    text = shown.content.decode()
    assert f"Saved by {saved.actor}" in text
    assert f"{saved.at:%Y-%m-%d %H:%M:%S} UTC" in text
    # Enter in a field presses the first button, which must not be the one that saves over it.
    assert text.index('name="_save"') < text.index('name="_overwrite"')


def test_a_part_of_a_zone_will_do_where_it_means_one(administrator, world):
    address = reverse("admin:schedules_schedule_add")

    several = administrator.post(address, form(world, timezone="istanbul"))
    assert "Asia/Istanbul, Europe/Istanbul" in str(several.context["adminform"].form.errors["timezone"])
    assert administrator.post(address, form(world, timezone="new york")).status_code == 302
    assert Schedule.objects.get(tenant_id=world.tenant_id).timezone == "America/New_York"

    preview = {"install": world.install_id, "cron": "0 4 * * *"}
    assert "in Asia/Tokyo" in text_of(administrator, "schedule_preview", timezone="tokyo", **preview)
    assert "Several zones fit" in text_of(administrator, "schedule_preview", timezone="istanbul", **preview)


def test_the_form_says_why_nothing_can_come_of_it(administrator, world):
    schedule = world.create(sync=False)
    assert 'class="hint"' not in text_of(administrator, "schedule_add")

    ExtensionInstall.objects.filter(id=world.install_id).update(is_enabled=False)
    assert "no schedule of it can be created" in text_of(administrator, "schedule_add")
    assert "no schedule of it can be enabled" in text_of(administrator, "schedule_change", schedule["id"])
    ExtensionInstall.objects.filter(id=world.install_id).update(is_enabled=True)
    ApiEndpoint.objects.filter(version__installs__id=world.install_id).update(schedulable=False)
    assert "declares no endpoint that can be scheduled" in text_of(administrator, "schedule_add")


@pytest.mark.parametrize("reason", ["The extension is disabled", "An operator has stopped it: Moving house"])
def test_nothing_is_offered_to_run_by_hand_where_it_would_be_refused(administrator, world, reason):
    schedule = world.create(sync=False)
    run = ended_run(world, schedule)
    addresses = [("schedule_page", schedule["id"], 3), ("schedulerun_change", run.id, 1)]
    for name, key, _ in addresses:
        assert " disabled title=" not in text_of(administrator, name, key)

    if "disabled" in reason:
        ExtensionInstall.objects.filter(id=world.install_id).update(is_enabled=False)
    else:
        target = kill_switches.find_target(scope="tenant", name=str(world.tenant_id))
        kill_switches.engage(target, reason="Moving house", actor=ACTOR)
    try:
        # Run now, Backfill and Again; Run again.
        for name, key, count in addresses:
            assert text_of(administrator, name, key).count(f' disabled title="{reason}"') == count
    finally:
        KillSwitch.objects.filter(target_id=world.tenant_id).delete()


def test_a_run_shows_the_key_that_was_sent_and_stands_on_the_timeline(administrator, world):
    schedule = world.create(sync=False)
    version = ExtensionInstall.objects.get(id=world.install_id).version_id
    refused = {"attempt": 1, "outcome": "failed", "envelope_status": 500}
    run = ended_run(
        world,
        schedule,
        version_id=version,
        endpoint_method="POST",
        endpoint_path=world.path,
        attempts=1,
        failed_envelopes=1,
        attempt_log=[refused],
    )

    shown = text_of(administrator, "schedulerun_change", run.id)
    assert f'<code class="breaks">{run.id}:0</code>' in shown
    assert f"x-idempotency-key: {run.id}:0" in shown
    address = reverse("admin:schedules_schedulerun_change", args=[run.id])
    assert f'<a href="{address}" aria-label="Failed, ' in text_of(administrator, "schedule_page", schedule["id"])


def test_the_home_page_says_how_many_slots_it_leaves_out(administrator, world):
    schedule = world.create(cron="*/5 * * * *", timezone="UTC", sync=False)
    Schedule.objects.filter(id=schedule["id"]).update(next_slot_at=NOW)

    assert "and 2 more" in administrator.get(reverse("admin:index")).content.decode()
