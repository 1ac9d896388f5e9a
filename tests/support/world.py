"""A named cast for integration tests: a tenant of its own for each test, brought in through the registry API."""

import json
import uuid

from django.test import Client

from schedules import api_keys, audit
from schedules.models import Role, Schedule, ScheduleRun
from tests.support.expressions import DAILY
from tests.support.waiting import eventually

RUNNER_TOKEN = "runner-token-in-use"
REGISTRY_TOKEN = "registry-token-in-use"
MANAGE = "cap:scheduler.manage"
ACTOR = audit.Actor(audit.Source.COMMAND, "test")


class World:
    """One tenant with one installed extension, and the doors to them."""

    def __init__(self):
        self.client = Client(raise_request_exception=False)
        self.tenant_id, self.registry_id, self.install_id = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
        self.publisher, self.extension_name = f"acme-{self.tenant_id.hex[:8]}", "reports"
        self.path = f"/api/sync-{self.tenant_id.hex[:12]}"
        self.keys = {}

    def set_up(self, **install):
        self.registry("PUT", f"tenants/{self.tenant_id}", {"name": "Acme", "timezone": "Europe/Berlin"})
        self.registry(
            "PUT", f"extensions/{self.registry_id}", {"publisher": self.publisher, "name": self.extension_name}
        )
        self.publish("1.0.0")
        self.put_install(version="1.0.0", **install)
        return self

    def manifest(self, endpoints=None):
        default = [
            {"method": "POST", "path": self.path, "handler": "dist/main"},
            {"method": "GET", "path": f"{self.path}/status", "handler": "dist/main"},
            {"method": "POST", "path": f"{self.path}/both", "handler": "dist/main"},
            {"method": "GET", "path": f"{self.path}/both", "handler": "dist/main"},
            {"method": "POST", "path": f"{self.path}/half", "schedulable": False},
            {"method": "GET", "path": f"{self.path}/half", "handler": "dist/main"},
            {"method": "POST", "path": f"{self.path}/setup", "handler": "dist/main", "schedulable": False},
            {"method": "DELETE", "path": f"{self.path}/items/:id", "handler": "dist/main"},
        ]
        return {
            "name": "com.acme.reports",
            "capabilities": [MANAGE],
            "api": {"endpoints": default if endpoints is None else endpoints},
        }

    def publish(self, version, *, endpoints=None, content_hash="a" * 64):
        body = {"content_hash": content_hash, "manifest": self.manifest(endpoints)}
        return self.registry("PUT", f"extensions/{self.registry_id}/versions/{version}", body)

    def put_install(self, **changes):
        body = {
            "install_id": str(self.install_id),
            "version": "1.0.0",
            "is_enabled": True,
            "config": {"region": "eu"},
            "granted_caps": [MANAGE],
        } | changes
        return self.registry("PUT", f"tenants/{self.tenant_id}/installs/{self.registry_id}", body)

    def registry(self, method, path, body=None, *, token=REGISTRY_TOKEN, expect=None):
        response = self.client.generic(
            method,
            f"/api/internal/registry/{path}",
            json.dumps(body) if body is not None else "",
            content_type="application/json",
            headers={"x-registry-auth": token},
        )
        if expect is None:
            assert response.status_code < 300, response.content
        else:
            assert response.status_code == expect, response.content
        return response.json() if response.content else None

    def host(self, operation, *, token=RUNNER_TOKEN, install_id=None, expect=None, **members):
        response = self.client.post(
            f"/api/internal/ext-scheduler/install/{install_id or self.install_id}",
            json.dumps({"operation": operation, **members}),
            content_type="application/json",
            headers={"x-runner-auth": token},
        )
        if expect is not None:
            assert response.status_code == expect, response.content
        return response.json()

    def key(self, role=Role.ADMINISTRATOR):
        if role not in self.keys:
            _, self.keys[role] = api_keys.create_key(
                tenant_id=self.tenant_id, name=f"test {role}", role=role, actor=ACTOR
            )
        return self.keys[role]

    def api(self, method, path, body=None, *, role=Role.ADMINISTRATOR, key=None, ref=None, expect=None, **headers):
        response = self.client.generic(
            method,
            f"/api/extensions/{ref or self.install_id}/{path}",
            json.dumps(body) if body is not None else "",
            content_type="application/json",
            headers={"authorization": f"Api-Key {key or self.key(role)}"}
            | {name.replace("_", "-"): value for name, value in headers.items()},
        )
        if expect is not None:
            assert response.status_code == expect, response.content
        return response.json() if response.content else None

    def tenant_api(self, method, path, body=None, *, role=Role.ADMINISTRATOR, key=None, expect=None):
        """A call of the admin API that is about the tenant and no install."""
        response = self.client.generic(
            method,
            f"/api/{path}",
            json.dumps(body) if body is not None else "",
            content_type="application/json",
            headers={"authorization": f"Api-Key {key or self.key(role)}"},
        )
        if expect is not None:
            assert response.status_code == expect, response.content
        return response.json() if response.content else None

    def create(self, *, sync=True, **changes):
        """Create a schedule, and wait for its mirror unless that cannot come."""
        body = {"endpoint": f"POST {self.path}", "cron": DAILY} | changes
        created = self.api("POST", "schedules", body, expect=201)
        return self.synced(created) if sync else created

    def change(self, schedule, **changes):
        """Change a schedule, and wait for its mirror."""
        return self.synced(self.api("PATCH", f"schedules/{schedule['id']}", changes, expect=200))

    def synced(self, schedule):
        """The schedule once its mirror shows it. A writer waits for its push only a moment."""

        def check():
            shown = self.api("GET", f"schedules/{schedule['id']}", expect=200)
            return shown if shown["sync_state"] == "synced" else None

        return eventually(check, seconds=70)

    def queued_run(self, schedule):
        """The row of a run that somebody asked for by hand, without its workflow."""
        return ScheduleRun.objects.create(
            id=uuid.uuid4(),
            tenant_id=self.tenant_id,
            install_id=self.install_id,
            schedule_id=schedule["id"],
            trigger="run_now",
            slot="2026-01-01T00:00:00Z",
            status="queued",
        )

    def run_now(self, schedule, *, expect=202, body=None, **headers):
        return self.api("POST", f"schedules/{schedule['id']}/run-now", body or {}, expect=expect, **headers)

    def finished_run(self, run_id):
        def check():
            run = self.api("GET", f"runs/{run_id}", expect=200)
            return run if run["finished_at"] else None

        return eventually(check)

    def runs(self, schedule, **filters):
        """Every run of a schedule, oldest slot first."""
        rows = ScheduleRun.objects.filter(tenant_id=self.tenant_id, schedule_id=schedule["id"], **filters)
        return list(rows.order_by("slot", "created_at"))

    def owe_since(self, schedule, moment):
        """Let a schedule be as if it had been enabled, and nobody had looked after it, since the moment."""
        Schedule.objects.filter(id=schedule["id"]).update(accounted_until=moment, next_slot_at=moment)
