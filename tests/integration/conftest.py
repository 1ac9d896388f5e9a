"""The people of the tests of the admin, and peace from the worker."""

import uuid

import pytest

from schedules.models import Role
from tests.support.people import signed_in


@pytest.fixture
def nobody_works(settings):
    """Nothing that is due while the test looks on is taken by the worker that tests share."""
    settings.TEMPORAL_TASK_QUEUE = f"nobody-{uuid.uuid4()}"


@pytest.fixture
def operator(database):
    return signed_in(superuser=True)


@pytest.fixture
def administrator(world):
    return signed_in(world, role=Role.ADMINISTRATOR)


@pytest.fixture
def viewer(world):
    return signed_in(world, role=Role.VIEWER)
