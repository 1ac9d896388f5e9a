"""A scenario of the benchmarks whose process does not end, and which has started one that is nobody's child."""

import subprocess
import threading

ABOUT = "Hangs."
# The shell ends at once.
START = 'sleep 987654 & echo $! >"$SCENARIO_PID_FILE"'


def run():
    subprocess.run(["sh", "-c", START], start_new_session=True, check=True)
    threading.Thread(target=threading.Event().wait).start()
    return []
