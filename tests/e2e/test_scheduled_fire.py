"""A schedule fires by itself, on time, and is recorded: real engine, real worker, real minute."""

import uuid
from datetime import UTC, datetime

import pytest

from tests.support.waiting import eventually
from workflows import names

pytestmark = pytest.mark.e2e


def test_a_schedule_whose_slot_is_within_a_minute_fires_and_is_recorded(world, worker, fake_runner, settings):
    settings.SCHEDULER_MIN_INTERVAL_SECONDS = 60
    schedule = world.create(cron="* * * * *", timezone="UTC", payload={"by": "itself"})
    due = schedule["next_run_at"]

    def first_run():
        runs = world.api("GET", f"schedules/{schedule['id']}/runs")["results"]
        return next((run for run in runs if run["slot"] == due), None)

    run = world.finished_run(eventually(first_run, seconds=120)["id"])

    assert run["slot"] == due
    assert run["trigger"] == "schedule"
    assert run["status"] == "succeeded"
    assert run["version"] == "1.0.0"
    assert 0 <= run["lateness_ms"] < 30_000
    slot = datetime.fromisoformat(due)
    identity = names.slot_invocation_id(schedule_id=uuid.UUID(schedule["id"]), slot=slot)
    assert run["id"] == str(identity)
    (call,) = (call for call in fake_runner.calls[world.path] if call.context["scheduled_for"] == due)
    assert call.context["trigger"] == "schedule"
    assert call.payload == {"by": "itself"}
    assert run["workflow_id"].startswith(f"extsched:{world.install_id}:{schedule['id']}")
    shown = world.api("GET", f"schedules/{schedule['id']}")
    assert shown["last_run_status"] == "succeeded"
    assert datetime.fromisoformat(shown["next_run_at"]) > datetime.now(UTC)
    world.api("DELETE", f"schedules/{schedule['id']}", expect=204)
