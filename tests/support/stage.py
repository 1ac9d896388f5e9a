"""Everything as processes, the demo runner among them, with two tenants, their people and some history."""

import shutil
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from django.contrib.auth.hashers import make_password

from deploy.demo import extension
from scheduler_project import embedded
from tests.support import processes
from tests.support.expressions import DAILY
from tests.support.platform import Platform
from tests.support.waiting import eventually

PASSWORD = "correct horse battery staple"
# The demo's guest has no handler for it, so each call fails for good.
BROKEN = "/api/report"
HOLD_NOTE = "Storage is being moved until tomorrow."
HEARTBEAT, STATUS = "/api/heartbeat", "/api/status"


@dataclass
class Tenant:
    """A tenant with one install."""

    name: str
    zone: str
    id: str
    registry_id: str
    install_id: str
    slug: str


class Stage(Platform):
    """The platform with web, worker and demo runner, for a browser to look at.

    Operator `olga`; Acme's administrators `anna` and `arno` and its viewer `vera`; Borealis' administrator `boris`.
    """

    extra_environment = {
        "TEMPORAL_UI_URL": "http://127.0.0.1:8233",
        "DJANGO_HTTPS": "false",
        "DJANGO_ALLOWED_HOSTS": "127.0.0.1,localhost",
    }

    def __init__(self, database_url, directory):
        super().__init__(database_url, directory)
        self.runner_port = embedded.free_port()
        self.runner = None
        self.extra_environment = self.extra_environment | {"RUNNER_BASE_URL": f"http://127.0.0.1:{self.runner_port}"}
        self.password_hash = make_password(PASSWORD)
        self.acme = self.borealis = None

    def __enter__(self):
        super().__enter__()
        try:
            self.start_worker()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *details):
        if self.runner is not None:
            self.runner.stop()
        super().__exit__(*details)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.web_port}"

    def start_web(self, **environment):
        super().start_web(**environment)
        if self.runner is None:
            command = [sys.executable, "-m", "deploy.demo.runner", "--port", str(self.runner_port)]
            self.runner = processes.Process(
                [*command, "--host-url", self.url], environment=self.environment, log_file=self.directory / "runner.log"
            )
            embedded.wait_for_port(self.runner_port, patience_seconds=30)

    def seed(self):
        self.acme = self.bring_in("Acme", "Europe/Berlin", "acme")
        self.borealis = self.bring_in("Borealis", "America/New_York", "borealis")
        # What the inherited helpers speak of.
        self.tenant_id, self.registry_id, self.install_id = self.acme.id, self.acme.registry_id, self.acme.install_id
        self.add_user("olga", superuser=True)
        self.add_user("anna", self.acme, "administrator")
        self.add_user("arno", self.acme, "administrator")
        self.add_user("vera", self.acme, "viewer")
        self.add_user("boris", self.borealis, "administrator")

    def bring_in(self, name, zone, publisher, *, extension_name="scheduler-demo", endpoints=None):
        tenant = Tenant(name, zone, *(str(uuid.uuid4()) for _ in range(3)), f"{publisher}.{extension_name}")
        self.registry("PUT", f"tenants/{tenant.id}", {"name": name, "timezone": zone})
        self.install(tenant, publisher, extension_name, endpoints=endpoints)
        return tenant

    def install(self, tenant, publisher, extension_name, *, registry_id=None, install_id=None, endpoints=None):
        registry_id, install_id = registry_id or tenant.registry_id, install_id or tenant.install_id
        self.registry("PUT", f"extensions/{registry_id}", {"publisher": publisher, "name": extension_name})
        manifest = extension.MANIFEST
        declared = manifest["api"]["endpoints"] if endpoints is None else endpoints
        declared = [*declared, {"method": "POST", "path": BROKEN, "handler": "dist/main"}] if declared else []
        manifest = manifest | {"api": {"endpoints": declared}}
        version = {"content_hash": "a" * 64, "manifest": manifest}
        self.registry("PUT", f"extensions/{registry_id}/versions/1.0.0", version)
        self.registry(
            "PUT",
            f"tenants/{tenant.id}/installs/{registry_id}",
            {
                "install_id": install_id,
                "version": "1.0.0",
                "config": {"greeting": "hello", "token": "kept-from-every-page"},
                "granted_caps": ["cap:scheduler.manage"],
                "secret_envelope": {"ciphertext": "kept-from-every-page"},
            },
        )

    def publish(self, registry_id, version, endpoints, *, content_hash, capabilities=("cap:scheduler.manage",)):
        """Another version of an extension, with endpoints as ``METHOD /path`` or as a manifest declares them."""
        declared = [
            one if isinstance(one, dict) else dict(zip(("method", "path"), one.split(" "), strict=True))
            for one in endpoints
        ]
        declared = [{"handler": "dist/main"} | one for one in declared]
        manifest = extension.MANIFEST | {"api": {"endpoints": declared}, "capabilities": list(capabilities)}
        body = {"content_hash": content_hash * 64, "manifest": manifest}
        self.registry("PUT", f"extensions/{registry_id}/versions/{version}", body)

    def publish_next(self):
        """Version 2.0.0 of Acme's extension: one endpoint has moved, one is closed, and it asks for one more thing."""
        closed = {"method": "POST", "path": BROKEN, "schedulable": False}
        endpoints = [f"POST {HEARTBEAT}/v2", f"GET {STATUS}", "POST /api/tidy-up", closed]
        capabilities = ("cap:scheduler.manage", "cap:mail.send")
        self.publish(self.acme.registry_id, "2.0.0", endpoints, content_hash="b", capabilities=capabilities)

    def upgrade_borealis(self):
        """Take Borealis to a version without its schedule's endpoint; returns the id of the upgrade in the trail."""
        self.publish(self.borealis.registry_id, "2.0.0", [f"GET {STATUS}"], content_hash="b")
        self.manage("upgrade_installs", self.borealis.slug, "2.0.0", "--disable-missing")
        ((event,),) = self.execute("SELECT max(id) FROM schedules_auditevent WHERE action = 'install.upgraded'")
        return event

    def stop_borealis(self):
        """A kill switch over Borealis; returns its id."""
        reason = "Their database is being moved to another region until noon."
        self.manage("kill_switch", "engage", "tenant", self.borealis.id, "--reason", reason)
        ((switch,),) = self.execute("SELECT id FROM schedules_killswitch WHERE target_id = %s", [self.borealis.id])
        return switch

    def add_user(self, name, tenant=None, role="", *, superuser=False):
        ((user_id,),) = self.execute(
            """
            INSERT INTO auth_user (username, password, is_staff, is_active, is_superuser, first_name, last_name, email,
                                   date_joined)
            VALUES (%s, %s, true, true, %s, '', '', '', now()) RETURNING id
            """,
            [name, self.password_hash, superuser],
        )
        if tenant is not None:
            self.execute(
                """
                INSERT INTO schedules_tenantmembership (id, tenant_id, user_id, role, is_active)
                VALUES (gen_random_uuid(), %s, %s, %s, true)
                """,
                [tenant.id, user_id, role],
            )

    def schedule(self, tenant=None, *, expect_sync=True, **members):
        """A new schedule of a tenant's install, once its mirror is there; returns its id."""
        tenant = tenant or self.acme
        answer = self.http.post(
            f"{self.url}/api/internal/ext-scheduler/install/{tenant.install_id}",
            json={"operation": "create", "endpoint": f"POST {HEARTBEAT}", "cron": DAILY, **members},
            headers={"x-runner-auth": "runner-token-in-use"},
        ).json()
        assert answer.get("success"), answer
        if expect_sync:
            eventually(lambda: self.row(answer["scheduleId"], "synced_generation = generation"))
        return answer["scheduleId"]

    def row(self, schedule_id, columns):
        """Columns of a schedule: the value of one, a tuple of several, None where the row is gone."""
        found = self.execute(f"SELECT {columns} FROM schedules_schedule WHERE id = %s", [schedule_id])
        return None if not found else found[0][0] if len(found[0]) == 1 else found[0]

    def statuses(self, schedule_id):
        """The states of a schedule's runs, oldest first."""
        found = self.execute(
            "SELECT status FROM schedules_schedulerun WHERE schedule_id = %s ORDER BY created_at, slot", [schedule_id]
        )
        return [status for (status,) in found]

    def set(self, schedule_id, assignments, values=()):
        self.execute(f"UPDATE schedules_schedule SET {assignments} WHERE id = %s", [*values, schedule_id])

    def run_to_show(self, schedule_id, tenant=None):
        """The id of a run by hand that has ended."""
        tenant = tenant or self.acme
        key = self.manage("create_api_key", tenant.id, "stage", "--role", "administrator").stdout.strip()
        headers = {"authorization": f"Api-Key {key}"}
        base = f"{self.url}/api/extensions/{tenant.install_id}"
        run = self.http.post(f"{base}/schedules/{schedule_id}/run-now", json={}, headers=headers).json()
        eventually(lambda: self.http.get(f"{base}/runs/{run['id']}", headers=headers).json()["finished_at"])
        return run["id"]

    def past_runs(self, schedule_id, *, count, every_minutes, tenant=None, failing_each=0, missed_each=0, slow_each=0):
        """Made-up history: a run for each of the past slots, some of them bad."""
        tenant = tenant or self.acme
        now = datetime.now(UTC)
        self.execute(
            _PAST_RUNS,
            {
                "tenant": tenant.id,
                "install": tenant.install_id,
                "schedule": schedule_id,
                "count": count,
                "every": every_minutes,
                "failing": failing_each,
                "missed": missed_each,
                "slow": slow_each,
                "now": now,
                "error": "the extension answered 503: the ledger is being rebuilt, try again after business hours",
            },
        )
        self.execute(
            """
            UPDATE schedules_schedule AS schedule
            SET last_run_at = newest.finished_at, last_run_status = newest.status, last_error = newest.error,
                last_success_at = (SELECT max(finished_at) FROM schedules_schedulerun
                                   WHERE schedule_id = schedule.id AND status = 'succeeded')
            FROM (SELECT * FROM schedules_schedulerun WHERE schedule_id = %s AND status <> 'missed'
                  ORDER BY slot DESC LIMIT 1) AS newest
            WHERE schedule.id = newest.schedule_id
            """,
            [schedule_id],
        )


_PAST_RUNS = """
INSERT INTO schedules_schedulerun (id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, attempts,
    version_id, version_name, content_hash, endpoint_method, endpoint_path, schedule_revision, actor, http_status,
    error, response_bytes, response_text, workflow_id, workflow_run_id, created_at, started_at,
    finished_at, attempt_log)
SELECT gen_random_uuid(), %(tenant)s, %(install)s, %(schedule)s, 'schedule', slot, status,
       CASE status WHEN 'failed' THEN 'the extension answered 503'
                   WHEN 'missed' THEN 'it could only start more than 5 minutes late' ELSE '' END,
       CASE status WHEN 'missed' THEN 0 ELSE 1 END,
       (SELECT version_id FROM schedules_extensioninstall WHERE id = %(install)s), '1.0.0', repeat('a', 64),
       'POST', '/api/heartbeat', 1, '', CASE status WHEN 'succeeded' THEN 200 WHEN 'failed' THEN 503 END,
       CASE status WHEN 'failed' THEN %(error)s ELSE '' END, 64, '{"alive": true}',
       CASE status WHEN 'missed' THEN '' ELSE 'extsched:past' END, '', slot, begun, ended, '[]'
FROM (
    SELECT slot, status,
           CASE WHEN status <> 'missed' THEN slot + make_interval(secs => 0.2 + (n %% 7) * 0.35) END AS begun,
           slot + make_interval(secs => 0.3 + (n %% 7) * 0.35
               + CASE WHEN %(slow)s > 0 AND n %% NULLIF(%(slow)s, 0) = 0 THEN 95 ELSE (n * n %% 13) * 0.31 END) AS ended
    FROM (
        SELECT n, date_trunc('minute', %(now)s::timestamptz) - make_interval(mins => (n * %(every)s)::int) AS slot,
               CASE WHEN %(failing)s > 0 AND n %% NULLIF(%(failing)s, 0) = 0 THEN 'failed'
                    WHEN %(missed)s > 0 AND n %% NULLIF(%(missed)s, 0) = 0 THEN 'missed' ELSE 'succeeded' END AS status
        FROM generate_series(1, %(count)s) AS n
    ) AS slots
) AS runs
ON CONFLICT DO NOTHING
"""


def furnish(stage):
    """A tenant with a bit of everything; returns the ids by what they show."""
    made = {
        "heartbeat": stage.schedule(name="Heartbeat", cron="*/15 * * * *", payload={"source": "schedule"}),
        "report": stage.schedule(
            name="Monthly invoices", endpoint=f"POST {BROKEN}", cron="30 6 1 * *", timezone="Europe/Berlin"
        ),
        "paused": stage.schedule(name="Ledger export", cron="5 */2 * * *", timezone="Europe/London"),
        "held": stage.schedule(name="Nightly clean-up", cron="15 2 * * *", timezone="Europe/Berlin"),
        "status": stage.schedule(
            name="Daily status check", endpoint=f"GET {STATUS}", cron="0 9 * * MON-FRI", timezone="America/New_York"
        ),
        "disabled": stage.schedule(name="Old import", cron="40 23 * * SUN", enabled=False),
        "theirs": stage.schedule(stage.borealis, name="Northern lights", cron="20 * * * *"),
    }
    stage.past_runs(made["heartbeat"], count=140, every_minutes=15, failing_each=29, missed_each=41, slow_each=17)
    stage.past_runs(made["report"], count=6, every_minutes=43200, failing_each=1)
    stage.past_runs(made["paused"], count=30, every_minutes=120, failing_each=2)
    stage.past_runs(made["status"], count=40, every_minutes=1440)
    stage.past_runs(made["theirs"], count=40, every_minutes=60, tenant=stage.borealis, failing_each=7)
    stage.set(made["report"], "consecutive_failures = 3")
    stage.set(
        made["paused"],
        "enabled = false, disabled_reason = 'paused after 5 runs in a row failed', consecutive_failures = 5",
    )
    # In Temporal, too: a comparison that comes by would take back a hold that is not there.
    mirror = f"extsched:{stage.install_id}:{made['held']}"
    stage.cli("schedule", "toggle", "--pause", "--reason", HOLD_NOTE, "--schedule-id", mirror)
    stage.set(made["held"], "held_since = now() - interval '3 hours', held_note = %s", [HOLD_NOTE])
    return made


def chromium():
    """Debian's browser, or None for the one that `playwright install chromium` has brought."""
    return shutil.which("chromium") or shutil.which("chromium-browser")
