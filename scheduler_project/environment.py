"""Reads the process environment once, typed and checked.

Every variable has a safe default or stops the process with one line that names it. Nothing else in the
project reads ``os.environ``, apart from the Temporal SDK, which has its own documented variables
(``TEMPORAL_ADDRESS`` and its siblings).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from environs import Env, EnvError, ValidationError

from scheduler_project import embedded

MINIMUM_SECRET_KEY_LENGTH = 50
MINIMUM_TOKEN_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The configuration of one process. Durations carry their unit in the name."""

    debug: bool
    secret_key: str
    allowed_hosts: tuple[str, ...]
    https: bool
    trusted_proxies: int
    static_root: str
    database: dict[str, Any]
    uses_embedded_database: bool
    temporal_task_queue: str
    temporal_ui_url: str
    runner_base_url: str
    gateway_timeout_ms: int
    runner_max_response_bytes: int
    runner_service_tokens: tuple[str, ...]
    registry_service_tokens: tuple[str, ...]
    min_interval_seconds: int
    max_schedules_per_install: int
    max_payload_bytes: int
    run_now_per_minute: int
    host_api_writes_per_minute: int
    worker_max_concurrent_runs: int
    worker_metrics_port: int
    metrics_token: str
    prometheus_directory: str
    notification_allowed_networks: tuple[IPv4Network | IPv6Network, ...]
    email: dict[str, Any]
    tracing: bool
    log_level: str


def read_environment() -> Environment:
    """Return the checked environment.

    Raises ImproperlyConfigured with a one-line message that starts with the variable's name.
    """
    env = Env()
    try:
        return _read(env)
    except EnvError as error:
        raise ImproperlyConfigured(_one_line(error)) from error


def _read(env: Env) -> Environment:
    debug = env.bool("DJANGO_DEBUG", False)
    database_url = env.str("DATABASE_URL", "")
    return Environment(
        debug=debug,
        secret_key=_secret_key(env, debug=debug),
        allowed_hosts=_allowed_hosts(env, debug=debug),
        https=env.bool("DJANGO_HTTPS", not debug),
        trusted_proxies=env.int("DJANGO_TRUSTED_PROXIES", 0, validate=_between(0, 10)),
        static_root=env.str("DJANGO_STATIC_ROOT", ""),
        database=_parse_database_url(database_url),
        uses_embedded_database=not database_url,
        temporal_task_queue=env.str("TEMPORAL_TASK_QUEUE", "extension-schedules", validate=_not_blank),
        temporal_ui_url=env.str("TEMPORAL_UI_URL", "", validate=_http_url_or_empty),
        runner_base_url=env.str("RUNNER_BASE_URL", "http://localhost:8080", validate=_http_url).rstrip("/"),
        gateway_timeout_ms=env.int("EXT_GATEWAY_TIMEOUT_MS", 30_000, validate=_between(1, 600_000)),
        runner_max_response_bytes=env.int(
            "EXT_RUNNER_MAX_RESPONSE_BYTES",
            262_144,
            validate=_between(1, 64 * 1024 * 1024),
        ),
        runner_service_tokens=_service_tokens(env, "RUNNER_SERVICE_TOKEN"),
        registry_service_tokens=_service_tokens(env, "REGISTRY_SERVICE_TOKEN"),
        min_interval_seconds=env.int("SCHEDULER_MIN_INTERVAL_SECONDS", 300, validate=_between(60, 31_536_000)),
        max_schedules_per_install=env.int("SCHEDULER_MAX_PER_INSTALL", 50, validate=_between(1, 100_000)),
        max_payload_bytes=env.int("SCHEDULER_MAX_PAYLOAD_BYTES", 102_400, validate=_between(2, 10_485_760)),
        run_now_per_minute=env.int("SCHEDULER_RUN_NOW_PER_MINUTE", 5, validate=_between(1, 100_000)),
        host_api_writes_per_minute=env.int("SCHEDULER_HOST_API_WRITES_PER_MINUTE", 10, validate=_between(1, 100_000)),
        worker_max_concurrent_runs=env.int("WORKER_MAX_CONCURRENT_RUNS", 600, validate=_between(1, 10_000)),
        worker_metrics_port=env.int("WORKER_METRICS_PORT", 0, validate=_between(0, 65_535)),
        metrics_token=env.str("METRICS_TOKEN", ""),
        prometheus_directory=env.str("PROMETHEUS_MULTIPROC_DIR", ""),
        notification_allowed_networks=_networks(env, "NOTIFICATION_ALLOWED_NETWORKS"),
        email=_email(env),
        tracing=bool(env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "") or env.str("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")),
        log_level=env.str("LOG_LEVEL", "INFO", validate=_log_level),
    )


def _parse_database_url(url: str) -> dict[str, Any]:
    if url and url.partition("://")[0] not in {"postgres", "postgresql"}:
        raise EnvError('Environment variable "DATABASE_URL" invalid: it must start with postgresql://')
    try:
        parsed = dj_database_url.parse(
            url or embedded.database_url(embedded.POSTGRES_DIRECTORY),
            conn_health_checks=True,
        )
    except ValueError as error:
        raise EnvError('Environment variable "DATABASE_URL" invalid: not a PostgreSQL connection URL') from error
    if not parsed.get("NAME"):
        raise EnvError('Environment variable "DATABASE_URL" invalid: it names no database')
    return dict(parsed)


def _service_tokens(env: Env, name: str) -> tuple[str, ...]:
    tokens = tuple(token for token in (part.strip() for part in env.str(name, "").split(",")) if token)
    if any(len(token) < MINIMUM_TOKEN_LENGTH for token in tokens):
        raise EnvError(
            f'Environment variable "{name}" invalid: each token needs at least {MINIMUM_TOKEN_LENGTH} characters'
        )
    return tokens


def _networks(env: Env, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    networks = []
    for text in env.list(name, [], subcast=str):
        try:
            networks.append(ip_network(text.strip()))
        except ValueError as error:
            raise EnvError(
                f'Environment variable "{name}" invalid: {text.strip()!r} is not a network such as 10.0.0.0/8'
            ) from error
    return tuple(networks)


def _email(env: Env) -> dict[str, Any]:
    """Django's settings for mail. Without a host, mail is written to the log's stream instead of being sent."""
    host = env.str("EMAIL_HOST", "")
    backend = "smtp" if host else "console"
    return {
        "EMAIL_BACKEND": f"django.core.mail.backends.{backend}.EmailBackend",
        "EMAIL_HOST": host or "localhost",
        "EMAIL_PORT": env.int(
            "EMAIL_PORT", 587 if env.bool("EMAIL_USE_TLS", False) else 25, validate=_between(1, 65_535)
        ),
        "EMAIL_HOST_USER": env.str("EMAIL_HOST_USER", ""),
        "EMAIL_HOST_PASSWORD": env.str("EMAIL_HOST_PASSWORD", ""),
        "EMAIL_USE_TLS": env.bool("EMAIL_USE_TLS", False),
        "EMAIL_TIMEOUT": 10,
        "DEFAULT_FROM_EMAIL": env.str("EMAIL_FROM", "scheduler@localhost", validate=_not_blank),
    }


def _secret_key(env: Env, *, debug: bool) -> str:
    key = env.str("DJANGO_SECRET_KEY", "")
    if len(key) < MINIMUM_SECRET_KEY_LENGTH and not debug:
        raise EnvError(
            'Environment variable "DJANGO_SECRET_KEY" invalid: '
            f"set it to at least {MINIMUM_SECRET_KEY_LENGTH} random characters"
        )
    return key


def _allowed_hosts(env: Env, *, debug: bool) -> tuple[str, ...]:
    hosts = tuple(env.list("DJANGO_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"]))
    if "*" in hosts and not debug:
        raise EnvError('Environment variable "DJANGO_ALLOWED_HOSTS" invalid: name the hosts, * lets in every one')
    return hosts


def _between(lowest: int, highest: int) -> Callable[[int], None]:
    def check(value: int) -> None:
        if not lowest <= value <= highest:
            raise ValidationError(f"{value} is not between {lowest} and {highest}")

    return check


def _not_blank(value: str) -> None:
    if not value.strip():
        raise ValidationError("it must not be blank")


def _http_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, or a bracket that is not closed
        usable = False
    if not usable:
        raise ValidationError("it must be an http:// or https:// address")


def _http_url_or_empty(value: str) -> None:
    if value:
        _http_url(value)


def _log_level(value: str) -> None:
    if value not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValidationError("it must be DEBUG, INFO, WARNING or ERROR")


def _one_line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return re.sub(r"^Environment variable \"(\w+)\"", r"\1", text)
