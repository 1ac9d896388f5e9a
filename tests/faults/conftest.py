"""A platform of its own for each test that breaks it: database, Temporal server, web process, operator's tools."""

import tempfile
from pathlib import Path

import pytest

from scheduler_project import embedded
from tests.support.platform import Platform


@pytest.fixture
def platform(database_url, tmp_path):
    with Platform(database_url, tmp_path) as platform:
        yield platform
        if platform.temporal.popen.poll() is None:
            platform.assert_decoys_untouched()


@pytest.fixture
def restartable(tmp_path):
    """A platform on a PostgreSQL of its own, and the folder of that; nobody else notices when it restarts."""
    with tempfile.TemporaryDirectory(prefix="scheduler-tests-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory) / "postgres"
        with embedded.running_postgres(folder, adopt=True) as url, Platform(url, tmp_path) as platform:
            yield platform, folder
            if platform.temporal.popen.poll() is None:
                platform.assert_decoys_untouched()
