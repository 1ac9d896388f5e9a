# Each target is a command that also works by hand. All of them install what is missing into .venv first.
PYTHON := $(CURDIR)/.venv/bin/python
INSTALLED := .venv/.installed
CELERY_INSTALLED := var/celery-venv/.installed

.PHONY: demo test check bench screenshots time-differential openapi lock format

demo: $(INSTALLED)
	@exec $(PYTHON) -m deploy.demo

test: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses $$((2 * $$(nproc))) --dist worksteal

check: $(INSTALLED)
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(CURDIR)/.venv/bin/lint-imports
	DJANGO_DEBUG=1 DATABASE_URL=postgresql://none@127.0.0.1:1/none $(PYTHON) -m deploy.missing_migrations
	DJANGO_DEBUG=1 DATABASE_URL=postgresql://none@127.0.0.1:1/none $(PYTHON) manage.py openapi --check docs/openapi.json
	DJANGO_SECRET_KEY=$$($(PYTHON) -c "import secrets; print(secrets.token_urlsafe(64))") $(PYTHON) manage.py check --deploy --fail-level WARNING

# A slow engine gets a share of the full sizes (BENCH_SHARE=1 takes all of them), QUICK=1 takes small ones, and both leave
# docs/ alone. Where Celery cannot be installed, its rows say that it is not there.
bench:
	-@$(MAKE) --silent --keep-going --jobs=2 $(INSTALLED) $(CELERY_INSTALLED)
	@$(MAKE) --silent $(INSTALLED)
	$(PYTHON) -m bench

# The main pages at both widths, light and dark, into var/screenshots; needs Chromium, as the tests do.
screenshots: $(INSTALLED)
	DJANGO_SETTINGS_MODULE=tests.settings $(PYTHON) -m tests.screenshots

# Compares the engine's fires with our slots in every IANA zone; `make test` does so in some forty.
time-differential: $(INSTALLED)
	TIME_DIFFERENTIAL=all $(PYTHON) -m pytest tests/integration/test_time_differential.py

format: $(INSTALLED)
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

# The committed copy of the OpenAPI document, from the code.
openapi: $(INSTALLED)
	DJANGO_DEBUG=1 DATABASE_URL=postgresql://none@127.0.0.1:1/none $(PYTHON) manage.py openapi docs/openapi.json

# Pins the newest versions that pyproject.toml allows; needs uv (https://docs.astral.sh/uv/).
lock:
	uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --custom-compile-command "make lock" pyproject.toml --output-file requirements/production.lock
	uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --custom-compile-command "make lock" --all-extras --group dev pyproject.toml --output-file requirements/development.lock
	uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --custom-compile-command "make lock" --group celery-side --output-file requirements/celery-side.lock

$(INSTALLED): requirements/development.lock
	sh deploy/install.sh .venv requirements/development.lock
	@touch $@

$(CELERY_INSTALLED): requirements/celery-side.lock
	@mkdir -p var
	sh deploy/install.sh var/celery-venv requirements/celery-side.lock
	@touch $@
