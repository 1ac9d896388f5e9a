"""The Celery side's services as real processes: Redis, beat, a worker, and the door through which it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlparse

import psycopg
from psycopg import sql

from bench import processes
from bench.processes import Managed
from bench.stage import Stage
from scheduler_project import embedded

CELERY_PYTHON: Final = embedded.VAR_DIRECTORY / "celery-venv" / "bin" / "python"
PATH: Final = "/celery"
WORKER_CONNECTION_NAME: Final = "bench-celery-worker"
# As many calls at once as the others' workers take.
CONCURRENCY: Final = 600
DATABASE: Final = "celery_side"
# The task's own limit for a call is 15 s. A shorter timeout than that would run slow tasks twice; a longer one leaves
# what a dead worker had in hand waiting for longer.
VISIBILITY_SECONDS: Final = 20


class PartMissing(RuntimeError):
    """Redis or the Celery side's environment is not installed."""


def redis_executable() -> str | None:
    """Debian's redis-server, where it is installed."""
    return shutil.which("redis-server")


def missing_part() -> str:
    """What keeps the Celery side from running here, or nothing."""
    if redis_executable() is None:
        return "redis-server is not installed (apt install redis-server)"
    if not CELERY_PYTHON.exists():
        return "Celery's environment is not installed (make var/celery-venv/.installed)"
    return ""


@dataclass(frozen=True, slots=True)
class CeleryStage:
    """What a scenario works with on the Celery side."""

    worker: Managed
    beat: Managed
    redis: Managed
    redis_port: int
    door: Door
    log: Path


class Door:
    """Asks the Celery side's own interpreter to do something; see `bench.celery_side.door`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(CELERY_PYTHON), "-m", "bench.celery_side.door"],
            env=os.environ | environment,
            cwd=embedded.PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **members: Any) -> Any:
        """The answer; raises RuntimeError with what went wrong there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **members}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        said = json.loads(line) if line else {"error": "the Celery side's door has closed"}
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["answer"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(processes.ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def built(stage: Stage) -> Iterator[CeleryStage]:
    """Everything up, on a database of its own in the stage's PostgreSQL; raises PartMissing."""
    if reason := missing_part():
        raise PartMissing(reason)
    with contextlib.ExitStack() as stack:
        directory = stage.directory / "redis"
        directory.mkdir()
        redis_port = embedded.free_port()
        redis = stack.enter_context(processes.running(_redis_command(redis_port, directory), log=os.devnull))
        embedded.wait_for_port(redis_port, patience_seconds=10)
        host = _create_database(stage.database_url)
        environment = {
            "DJANGO_SETTINGS_MODULE": "bench.celery_side.settings",
            "CELERY_SIDE_DATABASE": DATABASE,
            "CELERY_SIDE_HOST": host,
            "CELERY_SIDE_BROKER": f"redis://127.0.0.1:{redis_port}/0",
            "CELERY_SIDE_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
        }
        door = Door(environment)
        stack.callback(door.close)
        door.ask("migrate")
        celery = [str(CELERY_PYTHON), "-m", "celery", "-A", "bench.celery_side.app"]
        log = str(stage.directory / "celery.log")
        pool = ["--pool", "gevent", "--concurrency", str(CONCURRENCY)]
        # No gossip between workers, of which there is one.
        alone = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
        worker = processes.running(
            [*celery, "worker", *pool, *alone], log=log, PGAPPNAME=WORKER_CONNECTION_NAME, **environment
        )
        beat = processes.running([*celery, "beat", "--loglevel", "WARNING", "--pidfile="], log=log, **environment)
        built = CeleryStage(stack.enter_context(worker), stack.enter_context(beat), redis, redis_port, door, Path(log))
        _wait_until_it_works(built)
        yield built


def _wait_until_it_works(built: CeleryStage) -> None:
    """Return once beat and worker have brought one call to its row; raises RuntimeError with the log's end."""
    built.door.ask("overdue", name="first")
    deadline = time.monotonic() + embedded.START_PATIENCE_SECONDS
    while not built.door.ask("recorded", prefix="first"):
        if time.monotonic() > deadline or built.worker.has_ended or built.beat.has_ended:
            raise RuntimeError(f"Celery does not run: {built.log.read_text()[-500:]}")
        time.sleep(0.2)


def _redis_command(port: int, directory: Path) -> list[str]:
    """An append-only file, written to disk each second, and no snapshots beside it."""
    executable = redis_executable()
    assert executable is not None
    command = [executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    return [*command, "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]


def _create_database(url: str) -> str:
    """Make the database; returns the host as which the server is reached."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    return parse_qs(urlparse(url).query)["host"][0]
