"""A wrong environment stops a process with one line that names the variable."""

import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from scheduler_project import environment
from schedules import temporal_bridge
from tests.support.processes import ROOT, base_environment

GOOD = {"DJANGO_SECRET_KEY": "k" * 60, "DATABASE_URL": "postgresql://u@127.0.0.1:1/d"}


def check(**values):
    environment = base_environment(**(GOOD | values))
    command = [sys.executable, "manage.py", "check"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)


def test_good_settings_pass():
    assert check().returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DJANGO_SECRET_KEY", None),
        ("DJANGO_SECRET_KEY", "short"),
        ("DJANGO_DEBUG", "perhaps"),
        ("DJANGO_TRUSTED_PROXIES", "-1"),
        ("DJANGO_TRUSTED_PROXIES", "all"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "postgresql://localhost/"),
        ("DATABASE_URL", "nonsense"),
        ("RUNNER_BASE_URL", "localhost:8080"),
        ("RUNNER_BASE_URL", "ftp://localhost"),
        ("EXT_GATEWAY_TIMEOUT_MS", "30s"),
        ("EXT_GATEWAY_TIMEOUT_MS", "0"),
        ("EXT_RUNNER_MAX_RESPONSE_BYTES", "-1"),
        ("SCHEDULER_MIN_INTERVAL_SECONDS", "1"),
        ("SCHEDULER_MAX_PER_INSTALL", "many"),
        ("RUNNER_SERVICE_TOKEN", "long-enough-to-be-a-token,short"),
        ("REGISTRY_SERVICE_TOKEN", "short"),
        ("TEMPORAL_TASK_QUEUE", " "),
        ("LOG_LEVEL", "LOUD"),
        ("DATABASE_URL", "postgresql://u:p@[::1/db"),
        ("RUNNER_BASE_URL", "http://[::1"),
        ("RUNNER_BASE_URL", "http://localhost:99999"),
        ("RUNNER_BASE_URL", "http://localhost:abc"),
        ("TEMPORAL_UI_URL", "http://[x"),
        ("DJANGO_ALLOWED_HOSTS", "*"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value):
    for each, good in GOOD.items():
        monkeypatch.setenv(each, good)
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)

    with pytest.raises(ImproperlyConfigured) as refusal:
        environment.read_environment()

    assert str(refusal.value).startswith(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEMPORAL_ADDRESS", "no way!"),
        ("TEMPORAL_ADDRESS", "localhost:99999"),
        ("TEMPORAL_ADDRESS", ":::"),
        ("TEMPORAL_CONFIG_FILE", "/nonexistent"),
        ("TEMPORAL_TLS", "maybe"),
    ],
)
def test_a_wrong_variable_of_temporal_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=name) as refusal:
        temporal_bridge.read_profile()

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DJANGO_SECRET_KEY", None), ("DATABASE_URL", "postgresql://u:p@[::1/db"), ("TEMPORAL_ADDRESS", ":::")],
)
def test_a_process_stops_with_one_line(name, value):
    result = check(**{name: value})

    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"Configuration error: {name}")


def test_an_unreadable_temporal_profile_is_named_and_its_secrets_are_not(tmp_path):
    profile = tmp_path / "temporal.toml"
    profile.write_text('[profile.default]\napi_key = "very-secret\n')

    result = check(TEMPORAL_CONFIG_FILE=profile)

    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "TEMPORAL_CONFIG_FILE" in line
    assert "very-secret" not in result.stderr


def test_a_secret_in_the_environment_is_not_repeated():
    result = check(DATABASE_URL="mysql://user:hunter2@localhost/x")

    assert "hunter2" not in result.stderr + result.stdout
