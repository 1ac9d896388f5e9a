"""The suite's services, each started once and only when a test asks for it."""

import os

import dj_database_url
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from scheduler_project import embedded
from tests.support import processes
from tests.support.fake_runner import FakeRunner
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.world import World

# A throw-away server need not survive a power cut.
FAST_AND_UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


@pytest.fixture(scope="session")
def postgres_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("services") / "postgres"


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


@pytest.fixture(scope="session")
def worker(database, worker_environment, tmp_path_factory):
    """One real worker process for all tests that do not break it."""
    log_file = tmp_path_factory.mktemp("worker") / "worker.log"
    process = processes.start_worker(environment=worker_environment, log_file=log_file)
    try:
        eventually(lambda: process.says("worker.ready"))
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
