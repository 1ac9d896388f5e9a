"""The suite's services, each started once and only when a test asks for it."""

import asyncio
import os
import tempfile
from pathlib import Path

import dj_database_url
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from scheduler_project import embedded
from tests.support import processes
from tests.support.fake_runner import FakeRunner
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.world import World
from workflows import names

# A throw-away server need not survive a power cut.
FAST_AND_UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Let each process begin with its share of the modules that may take long, so that none of them is begun last."""
    processes_at_once = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = {item.path: [] for item in items if item.get_closest_marker("timeout")}
    rest = []
    for item in items:
        long.get(item.path, rest).append(item)
    share = -(-len(rest) // processes_at_once)
    items[:] = [
        item
        for number in range(processes_at_once)
        for part in [*list(long.values())[number::processes_at_once], rest[number * share : (number + 1) * share]]
        for item in part
    ]


@pytest.fixture(scope="session")
def postgres_directory():
    # Not below pytest's own folder: as root, PostgreSQL runs as a user of its own, and every other pytest that starts
    # meanwhile closes that folder to it.
    with tempfile.TemporaryDirectory(prefix="scheduler-tests-", ignore_cleanup_errors=True) as directory:
        yield Path(directory) / "postgres"


@pytest.fixture(scope="session")
def database_url(postgres_directory):
    with embedded.running_postgres(postgres_directory, options=FAST_AND_UNSAFE, adopt=True) as url:
        yield url


@pytest.fixture(scope="session")
def database(database_url, django_db_blocker):
    """The migrated database. Tests commit, as the product does, and each works in a tenant of its own."""
    parsed = dj_database_url.parse(database_url)
    for target in (settings.DATABASES["default"], connections["default"].settings_dict):
        target["NAME"] = parsed["NAME"]
        target["USER"] = parsed["USER"]
        target["OPTIONS"] |= parsed["OPTIONS"]
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        yield
        connections["default"].close()
        connections["default"].close_pool()


@pytest.fixture(scope="session")
def temporal_server():
    """The address of a Temporal server that keeps nothing."""
    with embedded.running_temporal(port=embedded.free_port()) as address:
        yield address


@pytest.fixture(scope="session")
def temporal_proxy(temporal_server):
    """The way to Temporal that the web side takes in tests, so that a test can block it."""
    proxy = Proxy(temporal_server)
    os.environ["TEMPORAL_ADDRESS"] = proxy.address
    yield proxy
    proxy.down()


@pytest.fixture(scope="session")
def fake_runner():
    runner = FakeRunner()
    settings.RUNNER_BASE_URL = runner.url
    yield runner
    runner.stop()


@pytest.fixture(scope="session")
def worker_environment(database_url, temporal_server, fake_runner):
    return processes.base_environment(
        DATABASE_URL=database_url,
        TEMPORAL_ADDRESS=temporal_server,
        RUNNER_BASE_URL=fake_runner.url,
        EXT_GATEWAY_TIMEOUT_MS=2000,
        EXT_RUNNER_MAX_RESPONSE_BYTES=65536,
    )


async def pause_the_passes(address):
    """Keep the shared worker from repairing or comparing what a test looks at; a test that wants it triggers it."""
    client = await Client.connect(address)
    try:
        for id_of in (names.convergence_schedule_id, names.comparison_schedule_id, names.retention_schedule_id):
            await client.get_schedule_handle(id_of(task_queue=settings.TEMPORAL_TASK_QUEUE)).pause(note="tests")
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False  # the worker installs them beside its other work
    return True


@pytest.fixture(scope="session")
def worker(database, temporal_server, worker_environment, tmp_path_factory):
    """One real worker process for all tests that do not break it."""
    log_file = tmp_path_factory.mktemp("worker") / "worker.log"
    process = processes.start_worker(environment=worker_environment, log_file=log_file)
    try:
        eventually(lambda: process.says("worker.ready"))
        eventually(lambda: asyncio.run(pause_the_passes(temporal_server)))
        yield process
    finally:
        status = process.stop()
    assert status == 0, process.output


@pytest.fixture
def world(database, temporal_proxy):
    return World().set_up()


@pytest.fixture
def other_world(database, temporal_proxy):
    return World().set_up()
