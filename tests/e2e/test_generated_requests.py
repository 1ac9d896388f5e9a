"""Thousands of requests that are generated from the OpenAPI document, good and bad ones, at both APIs.

Schemathesis checks each answer: its status is documented, its body and headers have the documented shape, what breaks
the document is refused, what follows it is not, nothing is answered without credentials, and nothing is a 5xx.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import uuid

import pytest

from scheduler_project import embedded
from schedules.api import schema
from tests.support import processes
from tests.support.world import REGISTRY_TOKEN, RUNNER_TOKEN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LEAST_REQUESTS = 2000
# Of requests that follow the document and are still not done: rules say more than a schema can.
RULES = [400, 404, 409, 412, 414]
# Of requests that break the document. A stale revision is told before the body is looked at (RFC 9110, 13.2.1).
REFUSALS = [400, 401, 403, 404, 405, 406, 409, 412, 413, 414, 415, 429]
# They need a superuser's session, which the generator has none of: it sees that no key and no token opens them.
OF_OPERATORS = {"list_kill_switches", "engage_kill_switch", "release_kill_switch"}


@pytest.fixture
def web(world, worker_environment, tmp_path):
    port = embedded.free_port()
    environment = worker_environment | {
        # A queue of its own that nobody works at: what is asked to run waits.
        "TEMPORAL_TASK_QUEUE": f"test-{uuid.uuid4()}",
        "SCHEDULER_RUN_NOW_PER_MINUTE": "100000",
        "SCHEDULER_HOST_API_WRITES_PER_MINUTE": "100000",
        "LOG_LEVEL": "WARNING",
    }
    process = processes.start_web(
        port=port, environment=environment, log_file=tmp_path / "web.log", access_log=tmp_path / "access.log"
    )
    try:
        embedded.wait_for_web(port, patience_seconds=embedded.START_PATIENCE_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


@pytest.fixture
def configuration(world, other_world, tmp_path):
    """What the generator cannot know: credentials, and ids that exist."""
    schedule = world.create(sync=False)
    run = world.queued_run(schedule)
    settings = {
        "auth": {
            "openapi": {
                "ApiKey": {"api_key": f"Api-Key {world.key()}"},
                "RunnerToken": {"api_key": RUNNER_TOKEN},
                "RegistryToken": {"api_key": REGISTRY_TOKEN},
            }
        },
        "parameters": {
            "path.extension_ref": str(world.install_id),
            "path.install_id": str(world.install_id),
            "path.schedule_id": schedule["id"],
            "path.run_id": str(run.id),
            "path.tenant_id": str(other_world.tenant_id),
            "path.registry_id": str(other_world.registry_id),
            "query.tenant_id": str(world.tenant_id),
            "body.cron": {"dictionary": "cron", "probability": 0.7},
            "body.timezone": {"dictionary": "zone", "probability": 0.7},
            "body.endpoint": {"dictionary": "endpoint", "probability": 0.7},
            "body.registryId": {"dictionary": "install", "probability": 0.7},
            "body.version": {"dictionary": "version", "probability": 0.5},
        },
        "dictionaries": {
            "install": {"values": [str(world.install_id)]},
            "version": {"values": ["1.0.0"]},
            "cron": {"values": ["*/10 * * * *", "30 2 * * *", "0 0 1 1 *", "0 0 30 2 *", "* * * * *"]},
            "zone": {"values": ["UTC", "Europe/Berlin", "America/Havana", "Mars/Base"]},
            "endpoint": {"values": [f"POST {world.path}", f"{world.path}/status", f"{world.path}/both"]},
        },
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", 401, 403, *RULES]},
            "negative_data_rejection": {"expected-statuses": REFUSALS},
        },
    }
    file = tmp_path / "schemathesis.toml"
    file.write_text(as_toml(settings))
    assert tomllib.loads(file.read_text()) == settings
    return file


def as_toml(settings):
    """Nested tables and lists of texts and numbers, which is all there is here."""
    lines = []

    def write(table, name):
        values = {key: value for key, value in table.items() if not isinstance(value, dict)}
        if values:
            lines.append(f"[{name}]")
            lines.extend(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items())
        for key, value in table.items():
            if isinstance(value, dict):
                write(value, f"{name}.{json.dumps(key)}" if name else key)

    write(settings, "")
    return "\n".join(lines) + "\n"


def operations_that_succeeded(access_log):
    """The operation ids of the document that were answered 2xx at least once."""
    patterns = [
        (method.upper(), re.compile(re.sub(r"{[a-z_]+}", "[^/]+", address) + r"\Z"), described["operationId"])
        for address, methods in schema.as_object()["paths"].items()
        for method, described in methods.items()
    ]
    # The more words an address has, the more it says: "preview" is no schedule's id.
    patterns.sort(key=lambda entry: entry[1].pattern.count("[^/]+"))
    found = set()
    for line in access_log.read_text().splitlines():
        method, address, status = line.split(" ")
        if status.startswith("2"):
            found.add(next((name for verb, known, name in patterns if verb == method and known.match(address)), None))
    return found - {None}


def test_generated_requests_find_nothing(world, web, configuration, tmp_path):
    given = ["--no-color", "--config-file", configuration]
    arguments = ["--checks", "all", "--max-examples", "40", "--seed", os.environ.get("GENERATED_REQUESTS_SEED", "1")]

    ended = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *given, "run", f"{web}/api/schema/", "--url", web, *arguments],
        capture_output=True,
        text=True,
        timeout=840,
        cwd=tmp_path,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-2000:]
    (count,) = re.findall(r"(\d+) generated", ended.stdout)
    assert int(count) >= LEAST_REQUESTS
    (tested, selected) = re.search(r"Selected: (\d+)/(\d+)", ended.stdout).groups()
    assert tested == selected
    everything = {
        described["operationId"] for methods in schema.as_object()["paths"].values() for described in methods.values()
    }
    assert everything - operations_that_succeeded(tmp_path / "access.log") == OF_OPERATORS
