"""``make demo`` as a newcomer starts it: on an empty var/, again on the kept data, and after a kill."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest

from scheduler_project import embedded
from tests.support import processes
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FOREIGN = ("DATABASE_URL", "TEMPORAL_ADDRESS", "RUNNER_BASE_URL", "DJANGO_SECRET_KEY", "DJANGO_HTTPS")
TOKENS = ("RUNNER_SERVICE_TOKEN", "REGISTRY_SERVICE_TOKEN", "DJANGO_ALLOWED_HOSTS", "DJANGO_SETTINGS_MODULE")


@pytest.fixture(scope="module")
def checkout():
    """A copy of what git knows of the project, without var/ and without .venv."""
    # Not below pytest's own folder, for the reason that `postgres_directory` gives.
    with tempfile.TemporaryDirectory(prefix="scheduler-demo-", ignore_cleanup_errors=True) as directory:
        yield copy_of_the_project(Path(directory) / "checkout")


def copy_of_the_project(target):
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=processes.ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        source, copy = processes.ROOT / name, target / name
        if source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    return target


class Demo:
    def __init__(self, checkout, number):
        self.port = embedded.free_port()
        # Three starts within a minute ask for more runs by hand than a tenant may.
        environment = processes.base_environment(
            DEMO_PORT=self.port, SCHEDULER_RUN_NOW_PER_MINUTE=100, **dict.fromkeys((*FOREIGN, *TOKENS), None)
        )
        self.checkout = checkout
        self.process = processes.Process(
            [sys.executable, "-m", "deploy.demo"],
            environment=environment,
            log_file=checkout.parent / f"demo-{number}.log",
            cwd=checkout,
        )
        self.file = checkout / "var" / "demo.json"

    def facts(self):
        """What demo.json says once this demo, and not a killed one before it, has written it."""

        def check():
            assert self.process.popen.poll() is None, self.process.output
            facts = json.loads(self.file.read_text()) if self.file.exists() else {}
            return facts if facts.get("web_url") == f"http://127.0.0.1:{self.port}" else None

        return eventually(check, seconds=90)

    def members(self):
        """Every process of this demo: those that carry its mark, and its PostgreSQL."""
        mark, found = str(self.checkout / "var"), []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SCHEDULER_DEMO_DIRECTORY") == mark or mark in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def interrupt(self):
        self.process.popen.send_signal(signal.SIGINT)
        return self.process.popen.wait(40)


@pytest.fixture
def start_demo(checkout):
    """Starts demos of the checkout, and ends what a failed test leaves of them."""
    started = []

    def start():
        started.append(Demo(checkout, len(started) + 1))
        return started[-1]

    yield start
    for demo in started:
        if demo.process.popen.poll() is None:
            demo.interrupt()
    for process in started[-1].members():
        with contextlib.suppress(psutil.Error):
            process.kill()


def api(facts, method, path, body=None):
    return httpx.request(
        method,
        f"{facts['web_url']}/api/extensions/{facts['install_id']}/{path}",
        json=body,
        headers={"authorization": f"Api-Key {facts['api_key']}"},
        timeout=20,
    )


def assert_the_main_job_works(facts):
    schedules = {item["name"]: item for item in api(facts, "GET", "schedules").json()["results"]}
    assert set(schedules) >= {"Heartbeat Check", "Daily Status Check"}
    assert (schedules["Heartbeat Check"]["cron"], schedules["Heartbeat Check"]["timezone"]) == ("*/5 * * * *", "UTC")
    assert schedules["Daily Status Check"]["timezone"] == "America/New_York"

    run = api(facts, "POST", f"schedules/{schedules['Daily Status Check']['id']}/run-now", {}).json()
    run = eventually(lambda: (shown := api(facts, "GET", f"runs/{run['id']}").json())["finished_at"] and shown)
    assert run["status"] == "succeeded", run
    assert run["slot"]
    assert run["attempts"] == 1
    assert run["version"] == "0.1.0"
    assert run["content_hash"]
    assert run["duration_ms"] >= 0
    assert run["http_status"] == 200


def mirrors_by_the_cli(facts):
    command = [embedded.temporal_executable(), "schedule", "list", "--really-long", "--output", "json"]
    command += ["--address", facts["temporal_address"], "--namespace", facts["temporal_namespace"]]
    command += ["--query", f'TenantId = "{facts["tenant_id"]}"']
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)


def test_the_demo_comes_up_works_and_goes_and_comes_again_on_its_data(start_demo):
    demo = start_demo()
    facts = demo.facts()
    assert set(facts) == {
        "web_url",
        "admin_username",
        "admin_password",
        "api_key",
        "runner_service_token",
        "registry_service_token",
        "runner_url",
        "database_url",
        "temporal_address",
        "temporal_namespace",
        "temporal_ui_url",
        "tenant_id",
        "registry_id",
        "install_id",
    }
    eventually(lambda: demo.process.says("First run       succeeded"))
    assert_the_main_job_works(facts)
    listed = eventually(lambda: (found := mirrors_by_the_cli(facts)) and len(found) == 3 and found)
    for mirror in listed:
        assert mirror["scheduleId"].startswith(f"extsched:{facts['install_id']}:")
        attributes = mirror["searchAttributes"]["indexedFields"]
        assert {"TenantId", "InstallId", "ExtensionId", "ScheduleId", "RunTrigger"} <= set(attributes)
    assert httpx.get(f"{facts['web_url']}/admin/login/").status_code == 200
    assert httpx.get(facts["temporal_ui_url"], follow_redirects=True).status_code == 200
    members = demo.members()
    assert len(members) > 5

    assert demo.interrupt() == 0
    assert not demo.file.exists()
    _, alive = psutil.wait_procs(members, timeout=15)
    assert not alive

    again = start_demo()
    kept = again.facts()
    assert kept["api_key"] == facts["api_key"]
    assert kept["admin_password"] == facts["admin_password"]
    assert_the_main_job_works(kept)
    members = again.members()

    # Killed this time, and its PostgreSQL with it: what it leaves behind must not be in the next one's way.
    again.process.kill()
    for process in members:
        with contextlib.suppress(psutil.Error):  # some end by themselves, now that nobody reads what they say
            if "postgres" in process.name():
                process.kill()
    third = start_demo()
    assert_the_main_job_works(third.facts())
    members += third.members()
    assert third.interrupt() == 0
    _, alive = psutil.wait_procs(members, timeout=15)
    assert not alive


def test_a_taken_port_is_named_in_one_line(checkout):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = processes.base_environment(DEMO_PORT=port, **dict.fromkeys((*FOREIGN, *TOKENS), None))
        result = subprocess.run(
            [sys.executable, "-m", "deploy.demo"],
            env=environment,
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert result.returncode == 1
    assert result.stderr.strip() == f"Port {port} is in use; choose another one: make demo DEMO_PORT=8010"
