"""Slow and resetting ways to each dependency, a database that restarts, and a long seeded walk through all of it."""

import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from scheduler_project import embedded
from tests.support.platform import Platform
from tests.support.rough_path import RoughPath
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


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


@pytest.fixture
def restartable(tmp_path):
    """A platform on a PostgreSQL of its own, and the folder of that; nobody else notices when it restarts."""
    with tempfile.TemporaryDirectory(prefix="scheduler-tests-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory) / "postgres"
        with embedded.running_postgres(folder, adopt=True) as url, Platform(url, tmp_path) as platform:
            yield platform, folder


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
    assert platform.reconcile()[0] == 0
    platform.assert_equal()
    assert {mirror.rsplit(":", 1)[1] for mirror in platform.rows()} >= set(acknowledged)


def test_a_long_walk_of_writes_and_faults_ends_converged(platform):
    seed = int(os.environ.get("WALK_SEED", "1"))
    walk = Walk(platform, random.Random(seed))

    for _ in range(1000):
        walk.step()
    walk.mend()

    platform.reconcile("--force")  # so many mirrors vanished that a pass refuses to believe it
    assert platform.reconcile()[0] == 0, f"seed {seed}"
    platform.assert_equal()
    assert {mirror.rsplit(":", 1)[1] for mirror in platform.rows()} == walk.alive, f"seed {seed}"


class Walk:
    """Writes through the API, edits by hand in Temporal, crashes; what was acknowledged is remembered."""

    def __init__(self, platform, rng):
        self.platform, self.rng = platform, rng
        self.alive, self.is_temporal_up = set(), True
        self.address = f"127.0.0.1:{platform.temporal_port}"

    def step(self):
        kind = self.rng.choices(
            ["create", "update", "delete", "edit", "vanish", "unstamp", "temporal", "web"],
            weights=[300, 300, 150, 60, 60, 20, 4, 2],
        )[0]
        getattr(self, kind)()

    def any(self):
        return self.rng.choice(sorted(self.alive)) if self.alive else None

    def create(self):
        if len(self.alive) < 150:
            self.alive.add(self.platform.create(cron=self.cron(), enabled=self.rng.random() < 0.8))

    def update(self):
        if schedule := self.any():
            self.platform.host("update", scheduleId=schedule, cron=self.cron(), enabled=self.rng.random() < 0.8)

    def delete(self):
        if schedule := self.any():
            assert self.platform.host("delete", scheduleId=schedule)["success"]
            self.alive.remove(schedule)

    def edit(self):
        self.by_hand("edit")

    def vanish(self):
        self.by_hand("delete")

    def unstamp(self):
        if schedule := self.any():
            self.platform.execute("UPDATE schedules_schedule SET synced_generation = 0 WHERE id = %s", [schedule])

    def temporal(self):
        if self.is_temporal_up:
            self.platform.stop_temporal()
        else:
            self.platform.start_temporal()
        self.is_temporal_up = not self.is_temporal_up

    def web(self):
        self.platform.web.kill_group()
        self.platform.start_web()

    def mend(self):
        if not self.is_temporal_up:
            self.temporal()

    def cron(self):
        return f"{self.rng.randrange(60)} {self.rng.randrange(24)} * * *"

    def by_hand(self, what):
        if self.is_temporal_up and (schedule := self.any()):
            self.platform.change_by_hand(f"extsched:{self.platform.install_id}:{schedule}", what)
