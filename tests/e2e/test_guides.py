"""The commands of the guides, run in a shell against a real web process; what they print is what the guides say."""

import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from scheduler_project import embedded
from tests.support import processes
from tests.support.world import RUNNER_TOKEN

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the commands are curl's; .ci/run installs it"),
]

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
BLOCK = re.compile(r"```(sh|json)\n(.*?)```|<!-- (.*?) -->", re.DOTALL)
ELIDED = "…"


@pytest.fixture
def web(worker_environment, temporal_server, tmp_path):
    port = embedded.free_port()
    environment = worker_environment | {"TEMPORAL_TASK_QUEUE": f"test-{uuid.uuid4()}"}
    process = processes.start_web(port=port, environment=environment, log_file=tmp_path / "web.log")
    try:
        embedded.wait_for_web(port, patience_seconds=embedded.START_PATIENCE_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


@pytest.fixture
def install(world):
    """An install with the endpoints that the guides speak of."""
    heartbeat = {"method": "POST", "path": "/api/heartbeat", "handler": "dist/main"}
    world.publish("2.0.0", endpoints=[heartbeat], content_hash="b" * 64)
    world.put_install(version="2.0.0")
    return world


def matches(shown, said):
    """Whether what was said is what the guide shows, where the guide does not leave it open."""
    if shown == ELIDED:
        return said is not None
    if isinstance(shown, dict):
        return (
            isinstance(said, dict)
            and shown.keys() == said.keys()
            and all(matches(shown[name], said[name]) for name in shown)
        )
    if isinstance(shown, list):
        return (
            isinstance(said, list)
            and len(shown) == len(said)
            and all(matches(one, other) for one, other in zip(shown, said, strict=True))
        )
    return shown == said


class Shell:
    """Runs block after block with what the earlier ones defined."""

    def __init__(self, **variables):
        self.functions = ""
        self.variables = variables

    def run(self, block):
        if "() {" in block:
            self.functions += block
            return None
        ended = subprocess.run(
            ["/bin/sh", "-euc", self.functions + block],
            env={"PATH": os.environ["PATH"]} | self.variables,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert not ended.stderr
        return json.loads(ended.stdout) if ended.stdout else None


def compare(guide, shell):
    """Run the guide; returns how many answers were compared."""
    compared, said, members = 0, None, None
    for kind, text, note in BLOCK.findall((GUIDES / guide).read_text()):
        if kind == "sh":
            said, members = shell.run(text), None
        elif kind == "json":
            shown = json.loads(text)
            seen = said if members is None else {name: said[name] for name in members}
            assert matches(shown, seen), f"the guide shows\n{shown}\nand the command said\n{said}"
            compared += 1
        elif note.startswith("shows: "):
            members = note.removeprefix("shows: ").split()
        else:
            name, member = note.split("=")
            shell.variables[name] = said[member]
    return compared


def test_the_host_guide_tells_the_truth(install, web):
    shell = Shell(WEB=web, RUNNER_TOKEN=RUNNER_TOKEN, INSTALL=str(install.install_id))
    assert compare("host-api.md", shell) == 7


@pytest.mark.parametrize("reference", ["slug", "install id", "registry id"])
def test_the_admin_guide_tells_the_truth(install, web, reference):
    extension = {
        "slug": f"{install.publisher}.{install.extension_name}",
        "install id": str(install.install_id),
        "registry id": str(install.registry_id),
    }[reference]
    shell = Shell(WEB=web, KEY=install.key(), EXTENSION=extension)
    assert compare("admin-api.md", shell) == 15
