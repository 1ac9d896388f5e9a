"""``make screenshots``: the main pages at both widths, light and dark, as files to look at.

python -m tests.screenshots [directory]
"""

import signal
import sys
import tempfile
from pathlib import Path

import django
from playwright.sync_api import sync_playwright

from scheduler_project import embedded
from tests.support import browsing
from tests.support import stage as stages

WIDTHS = {"wide": (1440, 900), "narrow": (390, 844)}


def pages(made, stage):
    install = stage.acme.install_id
    base = "/admin/schedules"
    heartbeat = f"{base}/schedule/{made['heartbeat']}"
    return {
        "home": ("anna", "/admin/"),
        "schedules": ("anna", f"{base}/schedule/"),
        "new-schedule": ("anna", f"{base}/schedule/add/"),
        "edit-schedule": ("anna", f"{heartbeat}/change/"),
        "schedule": ("anna", f"{heartbeat}/"),
        "held-schedule": ("anna", f"{base}/schedule/{made['held']}/"),
        "lift-hold": ("anna", f"{base}/schedule/{made['held']}/lift-hold/"),
        "delete-schedule": ("anna", f"{heartbeat}/delete/"),
        "backfill": ("anna", f"{heartbeat}/backfill/"),
        "runs": ("anna", f"{base}/schedulerun/"),
        "run": ("anna", f"{base}/schedulerun/{made['run']}/change/"),
        "extensions": ("anna", f"{base}/extensioninstall/"),
        "extension": ("anna", f"{base}/extensioninstall/{install}/change/"),
        "upgrade-versions": ("anna", f"{base}/extensioninstall/{install}/upgrade/"),
        "upgrade-plan": ("anna", f"{base}/extensioninstall/{install}/upgrade/?version=2.0.0"),
        "upgrade-result": ("boris", f"{base}/extensioninstall/{stage.borealis.install_id}/upgrade/{made['upgrade']}/"),
        "upgrade-back": ("boris", f"{base}/extensioninstall/{stage.borealis.install_id}/upgrade/?version=1.0.0"),
        "stopped-home": ("boris", "/admin/"),
        "stopped-schedule": ("boris", f"{base}/schedule/{made['theirs']}/"),
        "stopped-extension": ("boris", f"{base}/extensioninstall/{stage.borealis.install_id}/change/"),
        "uninstall": ("anna", f"{base}/extensioninstall/{install}/act/uninstall/"),
        "channels": ("anna", f"{base}/notificationchannel/"),
        "new-key": ("anna", f"{base}/apikey/add/"),
        "audit": ("anna", f"{base}/auditevent/"),
        "viewer": ("vera", f"{heartbeat}/"),
        "operator-home": ("olga", "/admin/"),
        "operations": ("olga", "/admin/operations/"),
        "kill-switch-target": ("olga", "/admin/operations/kill-switch/?scope=tenant"),
        "kill-switch": ("olga", f"/admin/operations/kill-switch/?scope=tenant&target={stage.acme.id}"),
        "kill-switch-release": ("olga", f"/admin/operations/kill-switch/{made['switch']}/release/"),
        "load": ("olga", "/admin/load/"),
        "login": (None, "/admin/login/"),
    }


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="scheduler-screenshots-", ignore_cleanup_errors=True) as scratch,
        embedded.running_postgres(Path(scratch) / "postgres", adopt=True) as database_url,
        stages.Stage(database_url, Path(scratch)) as stage,
        sync_playwright() as playwright,
    ):
        made = stages.furnish(stage)
        made["run"] = stage.run_to_show(made["report"])
        stage.publish_next()
        made["upgrade"], made["switch"] = stage.upgrade_borealis(), stage.stop_borealis()
        browser = browsing.launch(playwright)
        for look in ("light", "dark"):
            take(browser, stage, pages(made, stage), look, directory)
        browser.close()


def take(browser, stage, shown, look, directory):
    for who in dict.fromkeys(user for user, _ in shown.values()):
        context = browsing.context(browser, stage, who, color_scheme=look)
        page = context.new_page()
        for width, (across, down) in WIDTHS.items():
            page.set_viewport_size({"width": across, "height": down})
            for name, (user, address) in shown.items():
                if user != who:
                    continue
                page.goto(stage.url + address)
                page.wait_for_load_state("networkidle")
                file = directory / f"{name}-{width}-{look}.png"
                page.screenshot(path=file, full_page=True)
                print(file)
        context.close()


if __name__ == "__main__":
    # As Ctrl-C does it, so that everything that was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    django.setup()
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/screenshots"))
