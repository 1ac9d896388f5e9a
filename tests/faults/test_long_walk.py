"""A long seeded walk of writes through the API, hand edits in Temporal, and faults of everything that can fail."""

import os
import random
from contextlib import contextmanager

import httpx
import pytest

from scheduler_project import embedded
from tests.support.rough_path import RoughPath

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# The full comparison's quarter of an hour comes round after so many steps.
STEPS_BETWEEN_COMPARISONS = 60
MOST_SCHEDULES = 150


def test_a_long_walk_of_writes_and_faults_ends_converged_within_two_sweeps(restartable):
    """`WALK_SEED` repeats a walk, as far as the machine lets it."""
    platform, postgres_directory = restartable
    seed = int(os.environ.get("WALK_SEED", random.randrange(1_000_000)))
    print(f"WALK_SEED={seed}")
    platform.start_worker()
    walk = Walk(platform, postgres_directory, random.Random(seed))

    for number, step in enumerate(walk.steps(), start=1):
        step()
        if number % STEPS_BETWEEN_COMPARISONS == 0:
            platform.reconcile()
    walk.bring_services_up()

    platform.reconcile()
    status, _, said = platform.reconcile()
    assert status == 0, said
    platform.assert_equal()
    walk.assert_nothing_lost()
    walk.path.down()


class Walk:
    """Remembers what was acknowledged, and which writes got no answer and may or may not have happened."""

    # How often each is taken; their order is the seed's. A thousand together.
    STEPS = {
        "create": 320,
        "update": 334,
        "delete": 160,
        "edit": 65,
        "vanish": 25,
        "pause": 22,
        "unpause": 22,
        "duplicate": 4,
        "slow": 4,
        "reset": 4,
        "unstamp": 20,
        "temporal": 8,
        "web": 4,
        "worker": 4,
        "postgres": 4,
    }

    def __init__(self, platform, postgres_directory, rng):
        self.platform, self.postgres_directory, self.rng = platform, postgres_directory, rng
        self.ids, self.wanted, self.unsure = {}, {}, set()
        self.created, self.is_temporal_up, self.put_off = 0, True, []
        self.path = RoughPath(platform.temporal_address)
        platform.web.stop()
        self.start_web()

    def steps(self):
        kinds = [kind for kind, count in self.STEPS.items() for _ in range(count)]
        self.rng.shuffle(kinds)
        return [getattr(self, kind) for kind in kinds]

    def create(self):
        if len(self.ids) >= MOST_SCHEDULES:
            return
        self.created += 1
        name = f"walk-{self.created}"
        with self.unless_unanswered(name):
            cron, enabled = self.something()
            self.ids[name] = self.platform.create(name=name, cron=cron, enabled=enabled)
            self.wanted[name] = (cron, enabled)

    def update(self):
        if name := self.any():
            with self.unless_unanswered(name):
                cron, enabled = self.something()
                said = self.platform.host("update", scheduleId=self.ids[name], cron=cron, enabled=enabled)
                assert said["success"], said
                self.wanted[name] = (cron, enabled)
                self.unsure.discard(name)

    def delete(self):
        if name := self.any():
            with self.unless_unanswered(name):
                assert self.platform.host("delete", scheduleId=self.ids[name])["success"]
                del self.wanted[name]
            self.ids.pop(name)

    def edit(self):
        self.by_hand("edit")

    def vanish(self):
        self.by_hand("delete")

    def pause(self):
        self.by_hand("pause")

    def unpause(self):
        self.by_hand("unpause")

    def duplicate(self):
        self.by_hand("duplicate")

    def slow(self):
        """The web process's way to Temporal; it is mended by the next of these steps."""
        self.path.mend()
        self.path.delay_seconds = self.rng.choice([0.0, 0.3])

    def reset(self):
        self.path.mend()
        self.path.pieces_until_reset = self.rng.choice([None, 5])

    def unstamp(self):
        if name := self.any():
            self.platform.execute("UPDATE schedules_schedule SET synced_generation = 0 WHERE id = %s", [self.ids[name]])

    def temporal(self):
        if self.is_temporal_up:
            self.platform.stop_temporal()
        else:
            self.platform.start_temporal()
        self.is_temporal_up = not self.is_temporal_up
        if self.is_temporal_up:
            put_off, self.put_off = self.put_off, []
            for what in put_off:
                self.by_hand(what)

    def web(self):
        self.platform.web.kill_group()
        self.start_web()

    def start_web(self):
        self.platform.start_web(TEMPORAL_ADDRESS=self.path.address)

    def worker(self):
        self.platform.worker.kill()
        if self.is_temporal_up:
            self.platform.start_worker()

    def postgres(self):
        embedded.restart_postgres(self.postgres_directory)

    def bring_services_up(self):
        """All but the worker, whose sweeps would be a third and a fourth."""
        self.platform.worker.kill()
        self.path.mend()
        if not self.is_temporal_up:
            self.temporal()

    def assert_nothing_lost(self):
        found = {
            name: (cron, enabled)
            for name, cron, enabled in self.platform.execute("SELECT name, cron, enabled FROM schedules_schedule")
        }
        for name in self.unsure:
            found.pop(name, None)
            self.wanted.pop(name, None)
        assert found == self.wanted

    def any(self):
        return self.rng.choice(sorted(self.ids)) if self.ids else None

    def something(self):
        return f"{self.rng.randrange(60)} {self.rng.randrange(24)} * * *", self.rng.random() < 0.8

    def by_hand(self, what):
        """An operator whose server is away, or who finds nothing there, comes back once the server is up again."""
        if not self.is_temporal_up or not self.ids:
            self.put_off.append(what)
        else:
            name = self.any()
            self.platform.change_by_hand(f"extsched:{self.platform.install_id}:{self.ids[name]}", what)

    @contextmanager
    def unless_unanswered(self, name):
        """A write that got an error or no answer may have happened all the same."""
        try:
            yield
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 503:
                raise
            self.unsure.add(name)
        except httpx.TransportError:
            self.unsure.add(name)
