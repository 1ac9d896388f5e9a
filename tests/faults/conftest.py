"""A platform of its own for each test that breaks it: database, Temporal server, web process, operator's tools."""

import pytest

from tests.support.platform import Platform


@pytest.fixture
def platform(database_url, tmp_path):
    with Platform(database_url, tmp_path) as platform:
        yield platform
