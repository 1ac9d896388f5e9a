"""A scenario of the benchmarks whose process dies at once, and which has started one."""

import os
import subprocess
from pathlib import Path

ABOUT = "Dies."


def run():
    started = subprocess.Popen(["sleep", "987654"], start_new_session=True)
    Path(os.environ["SCENARIO_PID_FILE"]).write_text(str(started.pid))
    os._exit(1)
