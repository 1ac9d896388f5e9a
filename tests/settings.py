"""The settings of the product with what a test run needs in the environment."""

import os

os.environ.setdefault("DJANGO_SECRET_KEY", "tests-" + "0123456789" * 6)
os.environ.setdefault("DJANGO_HTTPS", "false")
os.environ.setdefault("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,testserver")
os.environ.setdefault("RUNNER_SERVICE_TOKEN", "runner-token-in-use,runner-token-of-yesterday")
os.environ.setdefault("REGISTRY_SERVICE_TOKEN", "registry-token-in-use")
# The suite brings its own services; what the developer's shell points at is not to be touched.
os.environ.pop("DATABASE_URL", None)
os.environ.pop("LOG_LEVEL", None)
for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
    del os.environ[name]

from scheduler_project.settings import *  # noqa: E402, F403
