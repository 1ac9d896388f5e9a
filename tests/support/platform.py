"""The product as processes, the services under it as processes that can be killed, and a comparer of its own."""

import asyncio
import contextlib
import json
import subprocess
import sys
import uuid

import httpx
import psycopg
from temporalio.client import Client, Schedule, ScheduleActionStartWorkflow, ScheduleSpec

from scheduler_project import embedded
from tests.support import hand_edits, processes
from tests.support.commands import SOMEBODY_ELSE_COMPARES
from tests.support.expressions import DAILY
from tests.support.waiting import PATIENCE_SECONDS, eventually

TOKEN = "registry-token-in-use"
RUNNER_TOKEN = "runner-token-in-use"
PREFIX = "extsched:"
PATH = "/api/heartbeat"
# What each platform's database is a copy of; made once on each server.
TEMPLATE = "migrated"


class Platform:
    """Everything up, with one tenant and one install; all of it gone afterwards."""

    def __init__(self, database_url, directory):
        self.directory = directory
        self.admin_url = database_url
        self.name = f"faults_{uuid.uuid4().hex[:12]}"
        self.database_url = psycopg.conninfo.make_conninfo(database_url, dbname=self.name)
        self.temporal_port, self.temporal_file = embedded.free_port(), directory / "temporal.db"
        self.web_port = embedded.free_port()
        self.temporal = self.web = self.worker = None
        self.workers_started, self.decoys = 0, {}
        self.tenant_id, self.registry_id, self.install_id = (str(uuid.uuid4()) for _ in range(3))
        self.http = httpx.Client(timeout=30)

    def __enter__(self):
        self.create_database()
        try:
            self.start_temporal()
            self.put_decoys()
            self.start_web()
            self.seed()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.http.close()
        for process in (self.worker, self.web, self.temporal):
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.stop()
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{self.name}" WITH (FORCE)')

    @property
    def temporal_address(self):
        return f"127.0.0.1:{self.temporal_port}"

    # What an operator's shell has beside the platform's own.
    extra_environment = {}

    @property
    def environment(self):
        return processes.base_environment(
            **self.extra_environment,
            DATABASE_URL=self.url_of_database,
            TEMPORAL_ADDRESS=self.temporal_address,
            TEMPORAL_TASK_QUEUE="faults",
            REGISTRY_SERVICE_TOKEN=TOKEN,
            RUNNER_SERVICE_TOKEN=RUNNER_TOKEN,
            SCHEDULER_MAX_PER_INSTALL=5000,
            SCHEDULER_HOST_API_WRITES_PER_MINUTE=100_000,
            SCHEDULER_RUN_NOW_PER_MINUTE=1000,
            METRICS_TOKEN="metrics-token",
            DJANGO_SETTINGS_MODULE="scheduler_project.settings",
        )

    @property
    def url_of_database(self):
        return self.url_of(self.name)

    def url_of(self, name):
        base, _, query = self.admin_url.partition("?")
        scheme = base.rpartition("/")[0]
        return f"{scheme}/{name}" + (f"?{query}" if query else "")

    def create_database(self):
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]).fetchone():
                connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
                self.manage("migrate", "--verbosity", "0", DATABASE_URL=self.url_of(TEMPLATE))
            connection.execute(f'CREATE DATABASE "{self.name}" TEMPLATE "{TEMPLATE}"')

    @property
    def database_socket(self):
        """Where PostgreSQL listens; the file's name is its rule for the default port (libpq, "host")."""
        return f"{psycopg.conninfo.conninfo_to_dict(self.admin_url)['host']}/.s.PGSQL.5432"

    # --- the services

    def start_temporal(self):
        command = embedded.temporal_server_command(
            port=self.temporal_port, ui_port=None, database_file=self.temporal_file
        )
        self.temporal = processes.Process(
            command, environment=processes.base_environment(), log_file=self.directory / "temporal.log"
        )
        embedded.wait_for_temporal(self.temporal_port, patience_seconds=embedded.START_PATIENCE_SECONDS)

    def stop_temporal(self):
        self.temporal.kill()

    def wipe_temporal(self):
        """As if its database had been lost: the server comes back and knows nothing."""
        self.stop_temporal()
        for file in self.directory.glob("temporal.db*"):
            file.unlink()
        self.start_temporal()
        self.put_decoys()

    def start_web(self, *, workers=2, **environment):
        self.web = processes.start_web(
            port=self.web_port,
            environment=self.environment | environment,
            log_file=self.directory / "web.log",
            workers=workers,
        )
        embedded.wait_for_web(self.web_port, patience_seconds=embedded.START_PATIENCE_SECONDS)

    def start_worker(self, **environment):
        self.workers_started += 1
        self.worker = processes.start_worker(
            environment=self.environment | environment,
            log_file=self.directory / f"worker-{self.workers_started}.log",
        )
        eventually(lambda: self.worker.says("worker.ready"))

    # --- the operator

    def manage(self, *arguments, check=True, **environment):
        ended = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self.environment | environment,
            cwd=processes.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or ended.returncode == 0, ended.stderr
        return ended

    def reconcile(self, *options, waits=True):
        """The exit status and what was said, as a table {label: number}, and the errors.

        Where somebody else compares, as the worker does each quarter, it ``waits`` and asks again.
        """

        def ended_alone():
            ended = self.manage("reconcile", *options, check=False)
            return not (waits and SOMEBODY_ELSE_COMPARES in ended.stderr) and ended

        ended = eventually(ended_alone)
        rows = [line.rsplit(maxsplit=1) for line in ended.stdout.splitlines() if line[-1:].isdigit()]
        return ended.returncode, {label.strip(): int(number) for label, number in rows}, ended.stderr

    def cli(self, *arguments):
        """The real ``temporal`` command against this platform's server."""
        return subprocess.run(
            [embedded.temporal_executable(), *arguments, "--address", self.temporal_address],
            env=processes.base_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    # --- the doors

    def registry(self, method, path, body):
        answer = self.http.request(
            method,
            f"http://127.0.0.1:{self.web_port}/api/internal/registry/{path}",
            json=body,
            headers={"x-registry-auth": TOKEN},
        )
        answer.raise_for_status()

    def host(self, operation, **members):
        answer = self.http.post(
            f"http://127.0.0.1:{self.web_port}/api/internal/ext-scheduler/install/{self.install_id}",
            json={"operation": operation, **members},
            headers={"x-runner-auth": RUNNER_TOKEN},
        )
        answer.raise_for_status()
        return answer.json()

    def create(self, **members):
        said = self.host("create", **({"endpoint": f"POST {PATH}", "cron": DAILY} | members))
        assert said["success"], said
        return said["scheduleId"]

    def get(self, path, **headers):
        return self.http.get(f"http://127.0.0.1:{self.web_port}{path}", headers=headers)

    def seed(self):
        self.registry("PUT", f"tenants/{self.tenant_id}", {"name": "Acme", "timezone": "UTC"})
        self.registry("PUT", f"extensions/{self.registry_id}", {"publisher": "acme", "name": self.name})
        manifest = {"api": {"endpoints": [{"method": "POST", "path": PATH}]}}
        self.registry(
            "PUT", f"extensions/{self.registry_id}/versions/1.0.0", {"content_hash": "a" * 64, "manifest": manifest}
        )
        self.registry(
            "PUT",
            f"tenants/{self.tenant_id}/installs/{self.registry_id}",
            {"install_id": self.install_id, "version": "1.0.0", "granted_caps": ["cap:scheduler.manage"]},
        )

    # --- the comparer, which shares no code with the product

    def rows(self):
        """What the database wants: {mirror id: (paused, expression in words of the mirror, generation)}."""
        with psycopg.connect(self.database_url) as connection:
            found = connection.execute(
                """
                SELECT s.install_id, s.id, NOT (s.enabled AND i.is_enabled) OR s.held_since IS NOT NULL,
                       s.cron || ' in ' || s.timezone, s.generation
                FROM schedules_schedule s JOIN schedules_extensioninstall i ON i.id = s.install_id
                """
            ).fetchall()
        return {
            f"{PREFIX}{install}:{schedule}": (paused, words, str(generation))
            for install, schedule, paused, words, generation in found
        }

    def mirrors(self):
        """What Temporal holds below our prefix, but for the decoys, in the same words."""

        async def read():
            client = await Client.connect(self.temporal_address)
            ids = {entry.id async for entry in await client.list_schedules() if entry.id.startswith(PREFIX)}
            found = {}
            for mirror_id in ids - set(self.decoys):
                seen = await client.get_schedule_handle(mirror_id).describe()
                attributes = {pair.key.name: pair.value for pair in seen.typed_search_attributes}
                words = {calendar.comment for calendar in seen.schedule.spec.calendars}
                for at in seen.info.next_action_times[:3]:
                    # Not what the mirror says of itself: when it will really fire.
                    assert {f"{at.minute} {at.hour} * * * in UTC"} == words, mirror_id
                action = seen.schedule.action
                assert (action.workflow, action.task_queue) == ("RunSchedule", "faults")
                assert json.loads(action.args[0].data)["schedule_id"] == mirror_id.rsplit(":", 1)[1]
                found[mirror_id] = (
                    seen.schedule.state.paused,
                    words.pop() if len(words) == 1 else sorted(words),
                    attributes.get("ScheduleGeneration"),
                )
            return found

        return asyncio.run(read())

    def assert_equal(self, *, seconds=PATIENCE_SECONDS):
        """Rows and mirrors are equal; lists lag behind writes, so it is asked until it is so."""

        def check():
            assert self.mirrors() == self.rows()
            return True

        eventually(check, seconds=seconds)

    def mirrors_ids(self):
        async def read():
            client = await Client.connect(self.temporal_address)
            ids = {entry.id async for entry in await client.list_schedules() if entry.id.startswith(PREFIX)}
            return ids - set(self.decoys)

        return asyncio.run(read())

    # --- schedules of other people in the same namespace, some of which look like ours

    def put_decoys(self):
        async def put():
            client = await Client.connect(self.temporal_address)
            for decoy in ("nightly-billing", f"{PREFIX}{uuid.uuid4()}:{uuid.uuid4()}", f"{PREFIX}not-a-mirror"):
                action = ScheduleActionStartWorkflow("Other", id=decoy, task_queue="faults")
                await client.create_schedule(decoy, Schedule(action=action, spec=ScheduleSpec()))
                found[decoy] = (await client.get_schedule_handle(decoy).describe()).raw_description

        found = {}
        asyncio.run(put())
        self.decoys = found

    def assert_decoys_untouched(self):
        async def check():
            client = await Client.connect(self.temporal_address)
            for decoy, before in self.decoys.items():
                assert (await client.get_schedule_handle(decoy).describe()).raw_description == before

        asyncio.run(check())

    def status(self):
        answer = self.get("/api/status", authorization="Bearer metrics-token")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def key(self, *options):
        """The text of a new administrator's key."""
        made = self.manage("create_api_key", self.tenant_id, "faults", "--role", "administrator", *options)
        return made.stdout.strip()

    def api(self, method, path, body=None, *, key, expect):
        answer = self.http.request(
            method,
            f"http://127.0.0.1:{self.web_port}/api/extensions/{self.install_id}/{path}",
            json=body,
            headers={"authorization": f"Api-Key {key}"},
        )
        assert answer.status_code == expect, answer.text
        return answer.json()

    def lift_hold(self, schedule_id):
        self.api("POST", f"schedules/{schedule_id}/lift-hold", key=self.key(), expect=200)

    def run_now(self, schedule_id):
        return self.api("POST", f"schedules/{schedule_id}/run-now", {}, key=self.key(), expect=202)["id"]

    def finished_run(self, run_id):
        """The status and the number of attempts of a run, once it has ended."""

        def ended():
            ((status, attempts, at),) = self.execute(
                "SELECT status, attempts, finished_at FROM schedules_schedulerun WHERE id = %s", [run_id]
            )
            return (status, attempts) if at else None

        return eventually(ended)

    def calls(self, fake_runner):
        """The calls that reached the runner for this platform's install."""
        everyones = [call for calls in fake_runner.calls.values() for call in calls]
        return [call for call in everyones if call.context["install_id"] == self.install_id]

    def start_endless_run(self, schedule_id):
        """A run in flight for minutes, whose workflow waits for a worker that there is none of."""
        run_id = self.run_now(schedule_id)
        workflow = f"{PREFIX}{self.install_id}:{schedule_id}:manual:{run_id}"
        eventually(lambda: workflow in self.cli("workflow", "list"))
        self.execute(
            """
            UPDATE schedules_schedulerun
            SET status = 'running', started_at = now() - interval '5 minutes', workflow_id = %s
            WHERE id = %s
            """,
            [workflow, run_id],
        )
        return run_id

    # --- states that a crash or a bug can leave in the database

    def execute(self, statement, values=()):
        with psycopg.connect(self.database_url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else None

    def unstamp(self):
        """As if every push had reached Temporal and no stamp the row."""
        self.execute("UPDATE schedules_schedule SET synced_generation = 0")

    def dirty(self, schedule_id):
        self.execute("UPDATE schedules_schedule SET generation = generation + 1 WHERE id = %s", [schedule_id])

    def poison(self, schedule_id):
        self.execute(
            "UPDATE schedules_schedule SET generation = generation + 1, cron = 'nonsense' WHERE id = %s", [schedule_id]
        )

    def flood(self, *, rows, tenant=None):
        """So many unsynced schedules of a tenant; returns the tenant's id."""
        tenant_id, install_id = self.tenant_id, self.install_id
        if tenant is not None:
            tenant_id, install_id = str(uuid.uuid4()), str(uuid.uuid4())
            self.execute(
                """
                INSERT INTO schedules_tenant SELECT (jsonb_populate_record(t, jsonb_build_object('id', %s::text))).*
                FROM schedules_tenant t WHERE id = %s
                """,
                [tenant_id, self.tenant_id],
            )
            self.execute(
                """
                INSERT INTO schedules_extensioninstall
                SELECT (jsonb_populate_record(i, jsonb_build_object('id', %s::text, 'tenant_id', %s::text))).*
                FROM schedules_extensioninstall i WHERE id = %s
                """,
                [install_id, tenant_id, self.install_id],
            )
        self.execute(
            """
            INSERT INTO schedules_schedule (id, tenant_id, install_id, endpoint_method, endpoint_path, cron, timezone,
                enabled, disabled_reason, revision, generation, synced_generation, sync_error, calendar_rules,
                last_run_status, last_error)
            SELECT gen_random_uuid(), %s, %s, 'POST', %s, %s, 'UTC', true, '', 1, 1, 0, '', '', '', ''
            FROM generate_series(1, %s)
            """,
            [tenant_id, install_id, PATH, DAILY, rows],
        )
        return tenant_id

    def synced(self, tenant_id):
        ((count,),) = self.execute(
            "SELECT count(*) FROM schedules_schedule WHERE tenant_id = %s AND synced_generation = generation",
            [tenant_id],
        )
        return count

    def unsynced(self):
        ((count,),) = self.execute("SELECT count(*) FROM schedules_schedule WHERE synced_generation <> generation")
        return count

    def sync_error(self, schedule_id):
        ((text,),) = self.execute("SELECT sync_error FROM schedules_schedule WHERE id = %s", [schedule_id])
        return text

    def change_by_hand(self, schedule_id, what):
        """What an operator could do with the CLI, without its start-up time; one that is not there is fine."""
        asyncio.run(hand_edits.make(self.temporal_address, schedule_id, what))
