"""A minute of upgrades, edits, creates, deletes and runs of one install against each other."""

import json
import random
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from schedules import sweep
from schedules.models import ApiEndpoint, ExtensionInstall, Schedule, ScheduleRun
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SECONDS = 60
MOST_UNFINISHED = 20
MADE_UP_FOR = {"overlap_policy": "allow", "catch_up_policy": "latest"}
VERSIONS = {"2.0.0": "b" * 64, "3.0.0": "c" * 64}
# What happens when two people want different things; anything else is a bug.
EXPECTED_REFUSALS = {404, 409, 412, 429}


class Crowd:
    """Threads that each do one kind of thing over and over; what a server could not answer is kept."""

    def __init__(self, seconds):
        self.until = time.monotonic() + seconds
        self.bugs, self.done, self.ended = [], {}, set()
        self.threads = []

    def start(self, name, work):
        def loop():
            rng = random.Random(name)
            try:
                while time.monotonic() < self.until:
                    status, body = work(rng)
                    self.done[name, status] = self.done.get((name, status), 0) + 1
                    if status >= 300 and status not in EXPECTED_REFUSALS:
                        self.bugs.append((name, status, body))
                self.ended.add(name)
            finally:
                connection.close()

        self.threads.append(threading.Thread(target=loop, name=name))
        self.threads[-1].start()

    def wait(self):
        for thread in self.threads:
            thread.join(SECONDS + 60)
        assert self.ended == {thread.name for thread in self.threads}, "a thread died, see its traceback"


def test_no_schedule_points_elsewhere_and_no_run_mixes_versions(world, worker, fake_runner, settings):
    settings.SCHEDULER_RUN_NOW_PER_MINUTE = 100_000
    # Each version has a path of its own, so that a call tells which version it belongs to.
    of_version = {version: f"{world.path}/v{version[0]}" for version in VERSIONS}
    for version, content_hash in VERSIONS.items():
        endpoints = [{"method": "POST", "path": world.path}, {"method": "POST", "path": of_version[version]}]
        world.publish(version, endpoints=endpoints, content_hash=content_hash)
    world.put_install(version="2.0.0")
    for _ in range(10):
        world.create(sync=False, **MADE_UP_FOR)

    crowd = Crowd(SECONDS)
    for number in range(2):
        crowd.start(f"upgrade {number}", lambda rng: upgrade(world, rng, of_version))
        crowd.start(f"run {number}", lambda rng: run(world, rng))
    crowd.start("create", lambda rng: create(world, rng, of_version))
    crowd.start("edit", lambda rng: edit(world, rng, of_version))
    crowd.start("delete", lambda rng: delete(world, rng))
    crowd.start("slots", lambda rng: miss_slots(world, rng))
    crowd.wait()

    assert crowd.bugs == []
    for kind in ("upgrade 0", "run 0", "create", "edit", "delete", "slots"):
        assert any(name == kind and status < 300 for name, status in crowd.done), (kind, crowd.done)
    install = ExtensionInstall.objects.get(id=world.install_id)
    for row in Schedule.objects.filter(install=install).select_related("endpoint"):
        assert row.endpoint is None or row.endpoint.version_id == install.version_id
        assert row.endpoint is not None or not row.enabled
    assert_no_run_mixes_versions(world, fake_runner, of_version)


def assert_no_run_mixes_versions(world, fake_runner, of_version):
    rows = ScheduleRun.objects.filter(tenant_id=world.tenant_id)

    def all_ended():
        sweep.converge_unsynced()  # which comes every minute, and finds what was too much for the background
        left = rows.filter(finished_at=None).values_list("status", "trigger", "attempts", "workflow_id", "version_name")
        assert not list(left[:5])
        return True

    eventually(all_ended)
    declared = {(each.version_id, each.method, each.path) for each in ApiEndpoint.objects.all()}
    ran = list(rows.exclude(started_at=None))
    assert len(ran) > 50
    assert len({run.version_name for run in ran}) == 2
    assert {run.trigger for run in ran} >= {"run_now", "schedule"}
    by_id = {}
    for run in ran:
        assert run.content_hash == VERSIONS[run.version_name]
        assert (run.version_id, run.endpoint_method, run.endpoint_path) in declared
        by_id[str(run.id)] = run
    for path in (world.path, *of_version.values()):
        for call in fake_runner.calls[path]:
            run = by_id[call.context["invocation_id"]]
            assert call.context["version_id"] == str(run.version_id)
            assert call.context["content_hash"].endswith(run.content_hash)
            assert path == run.endpoint_path
    # A claim that meets an upgrade half-way must not take for gone an endpoint that both versions have.
    assert not rows.filter(endpoint_path=world.path, reason__contains="does not exist").exists()


def ask(world, method, path, body=None):
    answer = world.client.generic(
        method,
        path if path.startswith("/") else f"/api/extensions/{world.install_id}/{path}",
        "" if body is None else json.dumps(body),
        content_type="application/json",
        headers={"authorization": f"Api-Key {world.key()}"},
    )
    return answer.status_code, answer.content


def upgrade(world, rng, of_version):
    version = rng.choice(list(of_version))
    body = {"registryId": str(world.install_id), "version": version}
    if rng.random() < 0.5:
        body["disableMissingSchedules"] = True
    else:
        (gone,) = [path for other, path in of_version.items() if other != version]
        body["remap"] = {f"POST {gone}": f"POST {world.path}"}
    status, answer = ask(world, "POST", "/api/v1/extensions/update", body)
    # Nobody calls that just now.
    return (404, answer) if status == 400 and b"no schedule of the install" in answer else (status, answer)


def any_schedule(world, rng):
    ids = list(Schedule.objects.filter(install_id=world.install_id).values_list("id", flat=True))
    return rng.choice(ids) if ids else uuid.uuid4()


def run(world, rng):
    """One more run, unless the engine has more than enough to do."""
    if ScheduleRun.objects.filter(tenant_id=world.tenant_id, finished_at=None).count() > MOST_UNFINISHED:
        threading.Event().wait(0.05)
        return 204, b""
    return ask(world, "POST", f"schedules/{any_schedule(world, rng)}/run-now", {})


def miss_slots(world, rng):
    """As if nobody had been there for a quarter of an hour: the sweep makes up for the latest slot."""
    if ScheduleRun.objects.filter(tenant_id=world.tenant_id, finished_at=None).count() > MOST_UNFINISHED:
        threading.Event().wait(0.05)
        return 204, b""
    missed = datetime.now(UTC) - timedelta(minutes=15)
    rows = Schedule.objects.filter(id=any_schedule(world, rng), enabled=True)
    rows.update(accounted_until=missed, next_slot_at=missed)
    sweep.settle_due()
    sweep.converge_unsynced()
    return 200, b""


def create(world, rng, of_version):
    path = rng.choice([world.path, *of_version.values()])
    status, body = ask(world, "POST", "schedules", {"endpoint": f"POST {path}", "cron": "*/5 * * * *", **MADE_UP_FOR})
    # The endpoint of the version that is not installed just now.
    return (404, body) if status == 400 and b"not found or not schedulable" in body else (status, body)


def edit(world, rng, of_version):
    change = rng.choice([{"cron": rng.choice(["*/5 * * * *", "*/10 * * * *"])}, {"enabled": True}, {"enabled": False}])
    status, body = ask(world, "PATCH", f"schedules/{any_schedule(world, rng)}", change)
    return (404, body) if status == 400 and b"choose an endpoint" in body else (status, body)


def delete(world, rng):
    if Schedule.objects.filter(install_id=world.install_id).count() < 15:
        return 204, b""
    return ask(world, "DELETE", f"schedules/{any_schedule(world, rng)}")
