"""Seeds the demo through the same doors as everybody else, shows what came of it, and says where everything is."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

import django
import httpx

from deploy.demo import extension
from scheduler_project import embedded

DEMO_FILE: Final = embedded.VAR_DIRECTORY / "demo.json"
API_KEY_FILE: Final = embedded.VAR_DIRECTORY / "demo-api-key"
ADMIN_USERNAME: Final = "admin"
PATIENCE_SECONDS: Final = 90.0
_IDS: Final = UUID("0d7f3f3e-2f5c-4d0e-9d52-6a2f7c0a9b11")
TENANT_ID: Final = uuid5(_IDS, "tenant")
REGISTRY_ID: Final = uuid5(_IDS, "extension")
INSTALL_ID: Final = uuid5(_IDS, "install")
CONTENT_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
NEXT_CONTENT_HASH: Final = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
MINUTE_SCHEDULE: Final = {
    "name": "Every minute, to watch it fire",
    "endpoint": "POST /api/heartbeat",
    "cron": "* * * * *",
    "timezone": "UTC",
    "payload": {"source": "demo"},
}


def main() -> None:
    """Seed, report, and wait for the end."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    django.setup()
    web_url = f"http://127.0.0.1:{os.environ['DEMO_PORT']}"
    _wait_until_up(stopping)
    if stopping.is_set():
        return
    _register(web_url)
    _create_admin()
    facts = _facts(web_url)
    _set_up_schedules(facts)
    run = _show_a_run(facts)
    _write_atomically(DEMO_FILE, facts)
    _print(facts, run)
    stopping.wait()
    DEMO_FILE.unlink(missing_ok=True)
    # The Temporal client's native threads can abort an interpreter's end.
    os._exit(0)


def _wait_until_up(stopping: threading.Event) -> None:
    from schedules import system_schedules  # needs the app registry
    from schedules.errors import SchedulingError

    embedded.wait_for_web(int(os.environ["DEMO_PORT"]), patience_seconds=PATIENCE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not stopping.is_set():
        try:
            system_schedules.install()
        except SchedulingError:
            if time.monotonic() > deadline:
                raise
            stopping.wait(0.5)
        else:
            return


def _register(web_url: str) -> None:
    """Bring in tenant, extension, version and install as the platform would: through the registry API."""
    token = os.environ["REGISTRY_SERVICE_TOKEN"].split(",")[0]
    base = f"{web_url}/api/internal/registry"
    calls: list[tuple[str, dict[str, Any]]] = [
        (f"tenants/{TENANT_ID}", {"name": "Demo tenant", "timezone": "Europe/Berlin"}),
        (
            f"extensions/{REGISTRY_ID}",
            {"publisher": "example", "name": "scheduler-demo"},
        ),
        (
            f"extensions/{REGISTRY_ID}/versions/{extension.VERSION}",
            {"content_hash": CONTENT_HASH, "manifest": extension.MANIFEST},
        ),
        (
            f"extensions/{REGISTRY_ID}/versions/{extension.NEXT_VERSION}",
            {"content_hash": NEXT_CONTENT_HASH, "manifest": extension.NEXT_MANIFEST},
        ),
        (
            f"tenants/{TENANT_ID}/installs/{REGISTRY_ID}",
            {
                "install_id": str(INSTALL_ID),
                "version": extension.VERSION,
                "is_enabled": True,
                "config": {"greeting": "hello"},
                "granted_caps": extension.MANIFEST["capabilities"],
            },
        ),
    ]
    with httpx.Client(headers={"x-registry-auth": token}, timeout=30) as client:
        for path, body in calls:
            answer = client.put(f"{base}/{path}", json=body)
            if answer.status_code == 409:
                # Kept data on which somebody has gone on working, e.g. with another version of the extension.
                print(f"demo: {path} stays as it is: {answer.json()['message']}", file=sys.stderr, flush=True)
                continue
            answer.raise_for_status()


def _create_admin() -> None:
    from django.contrib.auth import get_user_model

    user, _ = get_user_model().objects.get_or_create(username=ADMIN_USERNAME)
    user.is_staff = user.is_superuser = True
    user.set_password(os.environ["DEMO_ADMIN_PASSWORD"])
    user.save()


def _api_key() -> str:
    """The key of an earlier start while it still works, else a new one."""
    from schedules import api_keys, audit
    from schedules.models import Role

    if API_KEY_FILE.exists() and (text := API_KEY_FILE.read_text()) and api_keys.find_key(text):
        return text
    actor = audit.Actor(audit.Source.COMMAND, "demo")
    _, text = api_keys.create_key(tenant_id=TENANT_ID, name="Demo", role=Role.ADMINISTRATOR, actor=actor)
    API_KEY_FILE.touch(mode=0o600)
    API_KEY_FILE.write_text(text)
    return text


def _facts(web_url: str) -> dict[str, Any]:
    from schedules import temporal_bridge

    profile = temporal_bridge.read_profile()
    return {
        "web_url": web_url,
        "admin_username": ADMIN_USERNAME,
        "admin_password": os.environ["DEMO_ADMIN_PASSWORD"],
        "api_key": _api_key(),
        "runner_service_token": os.environ["RUNNER_SERVICE_TOKEN"].split(",")[0],
        "registry_service_token": os.environ["REGISTRY_SERVICE_TOKEN"].split(",")[0],
        "runner_url": os.environ["RUNNER_BASE_URL"],
        "database_url": os.environ["DATABASE_URL"],
        "temporal_address": profile["target_host"],
        "temporal_namespace": profile["namespace"],
        "temporal_ui_url": os.environ.get("TEMPORAL_UI_URL") or None,
        "tenant_id": str(TENANT_ID),
        "registry_id": str(REGISTRY_ID),
        "install_id": str(INSTALL_ID),
    }


def _set_up_schedules(facts: dict[str, Any]) -> None:
    """Let the extension set itself up, as an operator would, and add a schedule that fires each minute."""
    from django.core.management import CommandError, call_command

    try:
        call_command("invoke_endpoint", str(INSTALL_ID), "POST /api/setup")
    except CommandError as error:
        print(f"The extension's setup did not succeed: {error}", flush=True)
    with _admin_api(facts) as client:
        answer = client.post("schedules", json=MINUTE_SCHEDULE)
        if answer.is_error and answer.json()["code"] != "name_in_use":
            print(
                f"The minute schedule was refused: {answer.json()['message']}",
                flush=True,
            )


def _show_a_run(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Run the heartbeat now and return what was recorded."""
    with _admin_api(facts) as client:
        found = client.get("schedules").raise_for_status().json()["results"]
        heartbeat = next((item for item in found if item["endpoint_path"] == "/api/heartbeat"), None)
        if heartbeat is None:
            return None
        answer = client.post(f"schedules/{heartbeat['id']}/run-now", json={})
        if answer.is_error:
            print(f"Run-now was refused: {answer.json()['message']}", flush=True)
            return None
        run: dict[str, Any] = answer.json()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while run["status"] in {"queued", "running"} and time.monotonic() < deadline:
            time.sleep(0.2)
            run = client.get(f"runs/{run['id']}").raise_for_status().json()
        return run


def _admin_api(facts: dict[str, Any]) -> httpx.Client:
    return httpx.Client(
        base_url=f"{facts['web_url']}/api/extensions/{facts['install_id']}/",
        headers={"Authorization": f"Api-Key {facts['api_key']}"},
        timeout=30,
    )


def _write_atomically(file: Path, facts: dict[str, Any]) -> None:
    """Whoever waits for the file finds it complete."""
    partial = file.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(facts, indent=2) + "\n")
    partial.replace(file)


def _print(facts: dict[str, Any], run: dict[str, Any] | None) -> None:
    lines = [
        "",
        f"  Web and admin   {facts['web_url']}/admin/",
        f"  Login           {facts['admin_username']} / {facts['admin_password']}",
        f"  Temporal UI     {facts['temporal_ui_url'] or 'that of your own server'}",
        f"  Temporal        {facts['temporal_address']}",
        f"  API key         {facts['api_key']}",
        f"  Metrics         {facts['web_url']}/metrics and http://127.0.0.1:{os.environ['WORKER_METRICS_PORT']}/metrics",
        f"  Everything      {DEMO_FILE.relative_to(embedded.PROJECT_ROOT)}",
    ]
    if run is not None:
        lines += [
            "",
            f"  First run       {run['status']}: {run['endpoint_method']} {run['endpoint_path']}, {_details(run)}",
        ]
    print("\n".join([*lines, "", "  Ctrl-C stops everything.", ""]), flush=True)


def _details(run: dict[str, Any]) -> str:
    return f"HTTP {run['http_status']}, attempt {run['attempts']}, version {run['version']}, {run['duration_ms']} ms"


if __name__ == "__main__":
    main()
