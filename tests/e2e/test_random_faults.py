"""Two thousand slots under random faults: a runner that fails, hangs, resets and repeats, workers that are killed.

`RANDOM_FAULTS_SEED` repeats a run, as far as the machine lets it. The slots lie in the past, as if the platform had
been away: the ledger finds them, and the catch-up policy `all` has the real engine and real workers run them.
"""

import contextlib
import os
import random
import threading
import uuid
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from schedules import cron, sweep
from schedules.models import Schedule, ScheduleRun
from tests.support import processes
from tests.support.fake_runner import answers, resets
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

EVERY_FIVE = "*/5 * * * *"
SCHEDULES = 40
SLOTS_EACH = 51
KILL_EVERY_SECONDS = (8.0, 14.0)
PATIENCE_SECONDS = 900


class RememberingRunner:
    """Plays the real runner: runs the guest for a key that it has answered no call of, and repeats what it answered.

    Whether an answer reaches the caller is another matter: it comes late or too late, or the connection is torn down.
    """

    def __init__(self, rng):
        self.rng = rng
        self.lock = threading.Lock()
        self.envelopes = {}  # by idempotency key, in the order of execution
        self.under_way = set()
        self.doubled = []

    def __call__(self, handler):
        key = handler.call.headers["x-idempotency-key"]
        with self.lock:
            fate, delivery = self.rng.random(), self.rng.random()
            if key in self.under_way:
                self.doubled.append(key)
            # Whoever waits beyond its time limit may ask again while the guest is still at it.
            if delivery >= 0.01:
                self.under_way.add(key)
        # The guest's work: beyond the schedules' time limit; within it, and long enough to be handed over; or none.
        threading.Event().wait(4.5 if delivery < 0.01 else 3.0 if delivery < 0.03 else 0)
        with self.lock:
            if key not in self.envelopes:
                self.envelopes[key] = 200 if fate < 0.85 else 503 if fate < 0.97 else 404
            self.under_way.discard(key)
        if delivery > 0.97:
            return resets()(handler)
        with contextlib.suppress(OSError):
            return answers(self.envelopes[key])(handler)

    def executions(self):
        """What the guest answered, by invocation and then by the key's number."""
        found = defaultdict(dict)
        for key, status in self.envelopes.items():
            invocation, _, number = key.rpartition(":")
            found[invocation][int(number)] = status
        return found


class Herd:
    """Two workers of which one is killed every few seconds and replaced."""

    def __init__(self, start, rng):
        self.start, self.rng = start, rng
        self.stopping = threading.Event()
        self.workers = [start(), start()]
        self.kills = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.wait(self.rng.uniform(*KILL_EVERY_SECONDS)):
            victim = self.workers.pop(0)
            victim.kill()
            self.kills += 1
            self.workers.append(self._start_another())

    def _start_another(self):
        newcomer = self.start()
        # On a machine so slow that starting takes as long as one lives, there would be none that works.
        eventually(lambda: newcomer.says("worker.ready") or self.stopping.is_set())
        return newcomer

    def stop(self):
        self.stopping.set()
        self.thread.join(60)
        for worker in self.workers:
            worker.kill()


@pytest.fixture
def start_worker(world, worker_environment, settings, tmp_path):
    settings.TEMPORAL_TASK_QUEUE = f"test-{uuid.uuid4()}"
    environment = worker_environment | {
        "TEMPORAL_TASK_QUEUE": settings.TEMPORAL_TASK_QUEUE,
        "EXT_GATEWAY_TIMEOUT_MS": "5000",
    }
    started = []

    def start():
        started.append(None)
        return processes.start_worker(environment=environment, log_file=tmp_path / f"worker-{len(started)}.log")

    return start


def test_every_slot_ends_once_whatever_dies(world, start_worker, fake_runner, settings):
    seed = int(os.environ.get("RANDOM_FAULTS_SEED", random.randrange(1_000_000)))
    print(f"RANDOM_FAULTS_SEED={seed}")
    runner = RememberingRunner(random.Random(seed))
    fake_runner.script(world.path, runner)
    schedules = [
        world.create(
            sync=False,
            cron=EVERY_FIVE,
            timezone="UTC",
            catch_up_policy="all",
            overlap_policy=policy,
            retry_first_delay_seconds=1,
            retry_factor=1,
            attempt_timeout_seconds=4,
            pause_after_failures=0,
        )
        for policy in ("skip", "queue", "cancel_running", "allow")
        for _ in range(SCHEDULES // 4)
    ]
    for schedule in schedules:
        world.synced(schedule)
    since = datetime.now(UTC) - timedelta(minutes=5 * SLOTS_EACH)
    Schedule.objects.filter(tenant_id=world.tenant_id).update(accounted_until=since, next_slot_at=since)

    herd = Herd(start_worker, random.Random(seed + 1))
    try:
        runs = eventually(lambda: all_ended(world), seconds=PATIENCE_SECONDS, every=2)
    finally:
        herd.stop()

    assert herd.kills >= 3
    assert len(runs) >= 2000
    by_schedule = defaultdict(list)
    for run in runs:
        by_schedule[str(run.schedule_id)].append(run)
    assert set(by_schedule) == {schedule["id"] for schedule in schedules}
    expression, zone = cron.parse(EVERY_FIVE), cron.parse_zone("UTC")
    for found in by_schedule.values():
        expected = list(cron.slots_after(expression, zone, after=since, until=found[-1].slot))
        assert [run.slot for run in found] == expected
        made_up = [run for run in found if run.catch_up]
        assert not [
            (run.status, run.reason, run.workflow_id)
            for run in made_up
            if run.status not in {"succeeded", "failed", "timed_out"}
        ]
        exclusive = sorted((run for run in found if run.exclusive and run.started_at), key=lambda run: run.started_at)
        for earlier, later in pairwise(exclusive):
            assert later.started_at >= earlier.finished_at
    check_executions(runs, runner.executions())
    assert runner.doubled == []


def all_ended(world):
    """Every run, once none is left; the sweep of a minute is asked for more often, to be done sooner."""
    sweep.converge_unsynced()
    runs = list(ScheduleRun.objects.filter(tenant_id=world.tenant_id).order_by("schedule_id", "slot").defer("payload"))
    assert len(runs) >= SCHEDULES * (SLOTS_EACH - 1)
    assert all(run.finished_at for run in runs)
    return runs


def check_executions(runs, executions):
    """The guest ran once for each key, and another key was only ever made after a failed answer was known."""
    known = {str(run.id): run for run in runs}
    assert set(executions) <= set(known)
    for invocation, by_number in executions.items():
        run = known[invocation]
        numbers = sorted(by_number)
        assert numbers == list(range(len(numbers)))
        for number in numbers[:-1]:
            assert by_number[number] >= 400
        assert run.failed_envelopes <= len(numbers)
        if run.status == "succeeded":
            assert by_number[numbers[-1]] == 200
