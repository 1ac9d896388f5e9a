"""The services that a scenario runs on: throw-away PostgreSQL and Temporal, a sink, a worker, and Django set up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sys
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.db.backends.postgresql.base import DatabaseWrapper as PostgresConnection

from bench import processes
from bench.processes import Managed
from scheduler_project import embedded

if TYPE_CHECKING:
    # Models need Django to be set up, which a scenario does once it has a database.
    from schedules.models import ApiEndpoint, ExtensionInstall, Schedule
    from schedules.system_schedules import SystemSchedule

WORKER_CONNECTION_NAME: Final = "bench-worker"
# Both protocols' forms: "statement: …" and "execute <name>: …".
_STATEMENT: Final = re.compile(r"LOG: +(statement|execute [^:]*): ")


@dataclass(frozen=True, slots=True)
class Engine:
    """A Temporal server that answers."""

    process: Managed
    port: int
    file: Path


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario works with. ``directory`` goes with it; the database is ``database_url``."""

    worker: Managed
    engine: Engine
    postgres_pid: int
    postgres_log: Path
    database_url: str
    sink_port: int
    directory: Path

    def statements_of(self, connection_name: str) -> int:
        """How many statements the connections of a process have sent, as the server logged them."""
        prefix = f"{connection_name}|"
        with self.postgres_log.open(errors="replace") as lines:
            return sum(line.startswith(prefix) and _STATEMENT.search(line) is not None for line in lines)


@contextlib.contextmanager
def built(*, call_seconds: float, log_statements: bool = True) -> Iterator[Stage]:
    """Everything up and Django set up in this process; all of it gone afterwards."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        engine = stack.enter_context(running_engine(directory))
        sink_port = stack.enter_context(running_sink(call_seconds))
        url = stack.enter_context(_database(directory, log_statements=log_statements))
        worker = stack.enter_context(
            processes.running([sys.executable, "-m", "worker"], PGAPPNAME=WORKER_CONNECTION_NAME)
        )
        postgres = directory / "postgres"
        yield Stage(
            worker=worker,
            engine=engine,
            postgres_pid=int((postgres / "postmaster.pid").read_text().split()[0]),
            postgres_log=postgres / "log",
            database_url=url,
            sink_port=sink_port,
            directory=directory,
        )


@contextlib.contextmanager
def database_alone() -> Iterator[None]:
    """PostgreSQL and Django set up in this process, for what needs neither engine nor worker."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, _database(Path(directory), log_statements=False):
        yield


@contextlib.contextmanager
def _database(directory: Path, *, log_statements: bool) -> Iterator[str]:
    """The URL of a PostgreSQL with our tables."""
    options = {"log_statement": "all" if log_statements else "none", "log_line_prefix": "%a|"}
    with embedded.running_postgres(directory / "postgres", options=options, adopt=True) as url:
        os.environ |= _environment(url=url)
        _set_up_django()
        yield url
        _close_connections()


@contextlib.contextmanager
def running_engine(directory: Path) -> Iterator[Engine]:
    """A Temporal server of its own, which this process and those that it starts find in the environment."""
    port, file = embedded.free_port(), directory / "temporal.db"
    command = embedded.temporal_server_command(port=port, ui_port=None, database_file=file)
    with processes.running(command, log=os.devnull) as process:
        embedded.wait_for_temporal(port, patience_seconds=embedded.START_PATIENCE_SECONDS)
        os.environ["TEMPORAL_ADDRESS"] = f"127.0.0.1:{port}"
        yield Engine(process, port, file)


@contextlib.contextmanager
def running_sink(call_seconds: float) -> Iterator[int]:
    """The port of a sink, which is the runner of this process and of those that it starts."""
    port = embedded.free_port()
    with processes.running([sys.executable, "-m", "bench.sink", str(port), str(call_seconds)]):
        embedded.wait_for_port(port, patience_seconds=10)
        os.environ["RUNNER_BASE_URL"] = f"http://127.0.0.1:{port}"
        yield port


def _environment(*, url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": url,
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(48),
        "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
        "DJANGO_HTTPS": "false",
        "DJANGO_ALLOWED_HOSTS": "testserver,127.0.0.1",
        "EXT_GATEWAY_TIMEOUT_MS": "60000",
        "SCHEDULER_RUN_NOW_PER_MINUTE": "100000",
        "LOG_LEVEL": "WARNING",
    }


@dataclass(frozen=True, slots=True)
class Web:
    """A web app that answers."""

    port: int
    pid: int


@contextlib.contextmanager
def web(*, without: str = "", **environment: str) -> Iterator[Web]:
    """One web app as a deployment runs it, or without something (see `bench.untuned`)."""
    port = embedded.free_port()
    program = ["bench.untuned", without, "gunicorn"] if without else ["gunicorn"]
    command = [sys.executable, "-m", *program, "scheduler_project.wsgi", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "4", "--threads", "4", "--log-level", "warning"]
    with processes.running(command, **environment) as managed:
        embedded.wait_for_web(port, patience_seconds=embedded.START_PATIENCE_SECONDS)
        yield Web(port, managed.pid)


def hold_heavy_passes() -> None:
    """Install our system schedules, those paused that now and then ask much of engine and database.

    They would fall into one side's turn and not into another's.
    """
    from temporalio.client import Client

    from schedules import system_schedules

    async def hold() -> None:
        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
        for one in system_schedules_named("comparison", "purge"):
            await client.get_schedule_handle(one.id).pause(note="bench")

    system_schedules.install()
    asyncio.run(hold())


def system_schedules_named(*names: str) -> list[SystemSchedule]:
    """Some of our own schedules in Temporal."""
    from schedules.system_schedules import SYSTEM_SCHEDULES

    return [one for one in SYSTEM_SCHEDULES if one.name in names]


def seed_schedules(count: int) -> list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]]:
    """One tenant with so many disabled schedules, without mirrors; returns (tenant, install, schedule) ids."""
    from schedules import audit, convergence, installs
    from schedules.models import ApiEndpoint, Schedule

    actor = audit.Actor(audit.Source.COMMAND, "bench")
    tenant_id, registry_id = uuid.uuid4(), uuid.uuid4()
    installs.put_tenant(tenant_id=tenant_id, name="Bench", timezone="UTC", actor=actor)
    installs.put_extension(registry_id=registry_id, publisher="bench", name=registry_id.hex, actor=actor)
    manifest = {"api": {"endpoints": [{"method": "POST", "path": "/api/call"}]}}
    installs.put_version(
        registry_id=registry_id,
        version="1",
        version_id=None,
        content_hash="0" * 64,
        manifest=manifest,
        actor=actor,
    )
    granted = ["cap:scheduler.manage"]
    state = installs.InstallState(version="1", is_enabled=True, config={}, granted_caps=granted, secret_envelope=None)
    install = installs.put_install(tenant_id=tenant_id, registry_id=registry_id, state=state, actor=actor)
    endpoint = ApiEndpoint.objects.get(version_id=install.version_id)
    rows = Schedule.objects.bulk_create(
        synced_schedule(
            install,
            endpoint,
            enabled=False,
            payload={"n": number},
            exact_until=datetime.now(UTC) + timedelta(days=3650),
            calendar_rules=convergence.mirror_rules(),
        )
        for number in range(count)
    )
    return [(tenant_id, install.id, row.id) for row in rows]


def synced_schedule(install: ExtensionInstall, endpoint: ApiEndpoint, **members: Any) -> Schedule:
    """A row, not saved yet, that believes to have its mirror."""
    from schedules.models import Schedule

    return Schedule(
        tenant_id=install.tenant_id,
        install=install,
        endpoint=endpoint,
        endpoint_method=endpoint.method,
        endpoint_path=endpoint.path,
        **{"cron": "0 4 * * *", "timezone": "UTC", "synced_generation": 1} | members,
    )


def ask_for_runs(schedules: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]]) -> None:
    """One run-now for each, through the service; returns once the engine has all of them."""
    from django.db import connection

    from schedules import audit, background, runs

    def ask(ids: tuple[uuid.UUID, uuid.UUID, uuid.UUID]) -> None:
        try:
            runs.request_run_now(
                tenant_id=ids[0],
                install_id=ids[1],
                schedule_id=ids[2],
                actor=audit.Actor(audit.Source.COMMAND, "bench"),
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, schedules))
    background.finish_background_work(timeout_seconds=60)


def _set_up_django() -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def _close_connections() -> None:
    from django.db import connections

    connections.close_all()
    for connection in connections.all(initialized_only=True):
        if isinstance(connection, PostgresConnection):
            connection.close_pool()
