"""A schedule that fails too often is disabled, and whoever wants to know is told, by real mail and webhooks."""

import contextlib
import email
import email.policy
import ipaddress
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller
from standardwebhooks import Webhook, WebhookVerificationError

from scheduler_project import embedded
from schedules import audit, delivery, notifications
from schedules.errors import InvalidFields
from schedules.models import AuditEvent, Notification, Schedule, ScheduleRun
from schedules.runner import Answer, AttemptOutcome
from tests.support.attempts import SUCCESS, claim, claim_slot, record
from tests.support.fake_runner import answers
from tests.support.waiting import eventually

ACTOR = audit.Actor(audit.Source.COMMAND, "test")
EVERYTHING = ["failure", "recovery", "auto_pause", "missed"]
FAILURE = Answer(outcome=AttemptOutcome.FAILED, http_status=200, envelope_status=404, error="no such report")


def run(world, schedule, answer):
    """One run of the schedule with this answer, as the worker would write it."""
    return record(claim(world, schedule), answer)


def test_failures_in_a_row_disable_the_schedule(world):
    schedule = world.create(pause_after_failures=3)
    for answer in (FAILURE, FAILURE, SUCCESS, FAILURE, FAILURE):
        run(world, schedule, answer)
    assert world.api("GET", f"schedules/{schedule['id']}")["enabled"]

    run(world, schedule, FAILURE)

    paused = world.api("GET", f"schedules/{schedule['id']}")
    assert (paused["enabled"], paused["disabled_reason"]) == (False, "paused after 3 runs in a row failed")
    assert paused["consecutive_failures"] == 3
    (event,) = AuditEvent.objects.filter(tenant_id=world.tenant_id, action="schedule.paused")
    assert (event.source, event.before["enabled"], event.after["enabled"]) == ("system", True, False)
    world.synced(paused)

    enabled = world.change(schedule, enabled=True)
    assert (enabled["disabled_reason"], enabled["consecutive_failures"]) == (None, 0)


@pytest.mark.usefixtures("nobody_works")
@pytest.mark.parametrize(("cron", "failures"), [("*/5 * * * *", 20), ("0 4 * * *", 5)])
def test_without_a_number_of_its_own_it_depends_on_how_often_it_is_due(world, cron, failures):
    schedule = world.create(cron=cron)
    for _ in range(failures - 1):
        run(world, schedule, FAILURE)
    assert Schedule.objects.get(id=schedule["id"]).enabled

    run(world, schedule, FAILURE)

    assert not Schedule.objects.get(id=schedule["id"]).enabled


def test_zero_never_pauses(world):
    schedule = world.create(pause_after_failures=0)
    for _ in range(25):
        run(world, schedule, FAILURE)

    assert Schedule.objects.get(id=schedule["id"]).enabled


def test_a_dangling_endpoint_disables_at_once(world):
    slot = datetime.now(UTC).replace(second=0, microsecond=0)
    schedule = world.create(cron=f"{slot.minute} {slot.hour} * * *", timezone="UTC")
    world.owe_since(schedule, slot - timedelta(minutes=1))
    notifications.create_channel(
        tenant_id=world.tenant_id, kind="email", target="ops@example.com", events=["auto_pause"], actor=ACTOR
    )
    Schedule.objects.filter(id=schedule["id"]).update(endpoint=None)

    claim_slot(world, schedule, slot)  # before the schedule's grid is known
    row = Schedule.objects.get(id=schedule["id"])
    (ran,) = ScheduleRun.objects.filter(schedule_id=schedule["id"])
    assert (ran.status, ran.reason) == ("skipped_disabled", "its endpoint does not exist in the installed version")
    assert (row.enabled, row.disabled_reason) == (False, "its endpoint does not exist in the installed version")
    assert Notification.objects.filter(tenant_id=world.tenant_id, event="auto_pause").count() == 1


def test_a_streak_is_told_of_once_at_its_start_and_once_at_its_end(world):
    schedule = world.create(name="Nightly", pause_after_failures=3)
    notifications.create_channel(
        tenant_id=world.tenant_id, kind="email", target="ops@example.com", events=EVERYTHING, actor=ACTOR
    )
    for answer in (SUCCESS, FAILURE, FAILURE, SUCCESS, SUCCESS, FAILURE, FAILURE, FAILURE):
        run(world, schedule, answer)

    told = Notification.objects.filter(tenant_id=world.tenant_id).order_by("created_at")
    assert [message.event for message in told] == ["failure", "recovery", "failure", "auto_pause"]
    assert told[0].body["schedule"] == "Nightly"
    assert told[0].body["error"] == "no such report"
    assert told[1].body["failed_runs_before"] == 2


def test_a_recovery_is_told_of_where_runs_overlap(world):
    schedule = world.create(overlap_policy="allow")
    notifications.create_channel(
        tenant_id=world.tenant_id, kind="email", target="ops@example.com", events=EVERYTHING, actor=ACTOR
    )
    first, second = claim(world, schedule), claim(world, schedule)
    record(first, FAILURE)
    record(second, SUCCESS)

    told = Notification.objects.filter(tenant_id=world.tenant_id).order_by("created_at")
    assert [message.event for message in told] == ["failure", "recovery"]


class Receiver:
    """A webhook's receiver: answers as scripted and remembers what came."""

    def __init__(self):
        self.statuses, self.received, self.trickle = [], [], None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.received.append((dict(self.headers.items()), body))
                with contextlib.suppress(OSError):
                    while receiver.trickle is not None and not receiver.trickle.wait(0.1):
                        self.wfile.write(b"H")
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook?a=b"


@pytest.fixture
def receiver(settings):
    settings.NOTIFICATION_ALLOWED_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"),)
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def webhook(world, receiver, events=("failure",)):
    return notifications.create_channel(
        tenant_id=world.tenant_id, kind="webhook", target=receiver.url, events=list(events), actor=ACTOR
    )


def test_a_webhook_is_signed_so_that_the_receiver_can_verify_it(world, receiver):
    channel = webhook(world, receiver)
    schedule = world.create()
    run(world, schedule, FAILURE)

    delivery.deliver_due()

    ((headers, body),) = receiver.received
    verified = Webhook(channel.secret).verify(body, headers)
    assert verified["type"] == "schedule.failure"
    assert verified["data"]["schedule_id"] == schedule["id"]
    assert verified["data"]["status"] == "failed"
    message = Notification.objects.get(channel=channel)
    assert headers["webhook-id"] == str(message.id)
    assert message.delivered_at
    with pytest.raises(WebhookVerificationError):
        Webhook(channel.secret).verify(body.replace(b"failed", b"passed"), headers)
    assert channel.secret not in json.dumps(list(AuditEvent.objects.values("after")), default=str)


def test_a_message_is_delivered_again_under_the_same_id_until_it_is_taken(world, receiver):
    channel = webhook(world, receiver)
    receiver.statuses = [500, 302]
    run(world, world.create(), FAILURE)

    delivery.deliver_due()
    message = Notification.objects.get(channel=channel)
    assert (message.delivered_at, message.last_error) == (None, "The receiver answered HTTP 500")
    assert message.next_attempt_at > message.created_at
    for _ in range(2):
        Notification.objects.filter(id=message.id).update(next_attempt_at=datetime.now(UTC) - timedelta(seconds=1))
        delivery.deliver_due()

    assert Notification.objects.get(id=message.id).delivered_at
    assert [headers["webhook-id"] for headers, _ in receiver.received] == [str(message.id)] * 3


def test_a_message_that_nobody_takes_is_given_up_after_days(world, receiver):
    channel = webhook(world, receiver)
    receiver.statuses = [410] * 20
    run(world, world.create(), FAILURE)
    for _ in range(12):
        delivery.deliver_due()
        waiting = Notification.objects.filter(channel=channel, next_attempt_at__isnull=False)
        waiting.update(next_attempt_at=datetime.now(UTC) - timedelta(seconds=1))

    message = Notification.objects.get(channel=channel)
    assert (message.attempts, message.next_attempt_at, message.delivered_at) == (10, None, None)


def test_a_receiver_that_speaks_too_slowly_holds_nobody_up(world, receiver, monkeypatch):
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.5)
    receiver.trickle = threading.Event()
    channel = webhook(world, receiver)
    run(world, world.create(), FAILURE)

    try:
        delivery.deliver_due()
    finally:
        receiver.trickle.set()

    assert Notification.objects.get(channel=channel).last_error == "The receiver did not answer within 0.5 s"


def test_a_webhook_that_leads_inside_is_never_called(world, receiver, settings):
    channel = webhook(world, receiver)
    settings.NOTIFICATION_ALLOWED_NETWORKS = ()
    run(world, world.create(), FAILURE)

    delivery.deliver_due()

    assert receiver.received == []
    assert "private" in Notification.objects.get(channel=channel).last_error


class Mailbox:
    def __init__(self):
        self.received = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.received.append((*envelope.rcpt_tos, envelope.content))
        return "250 taken"


def test_mail_goes_through_the_configured_server(world, settings):
    mailbox, address = Mailbox(), f"ops-{world.tenant_id}@example.com"
    server = Controller(mailbox, hostname="127.0.0.1", port=embedded.free_port())
    server.start()
    try:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = server.server.sockets[0].getsockname()
        notifications.create_channel(
            tenant_id=world.tenant_id, kind="email", target=address, events=["failure"], actor=ACTOR
        )
        run(world, world.create(name="Näht"), FAILURE)
        delivery.deliver_due()
        # The messages of other tests may be due, too.
        content = eventually(lambda: dict(mailbox.received).get(address))
    finally:
        server.stop()

    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["to"] == address
    assert message["subject"] == "Schedule Näht failed"
    assert "error: no such report" in message.get_content()


def test_a_mail_server_that_is_away_loses_nothing(world, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    channel = notifications.create_channel(
        tenant_id=world.tenant_id, kind="email", target="ops@example.com", events=["failure"], actor=ACTOR
    )
    run(world, world.create(), FAILURE)

    delivery.deliver_due()

    message = Notification.objects.get(channel=channel)
    assert message.next_attempt_at
    assert "mail server" in message.last_error


def test_the_worker_delivers_by_itself(world, worker, receiver, fake_runner):
    channel = webhook(world, receiver)
    fake_runner.script(world.path, answers(404))
    world.finished_run(world.run_now(world.create())["id"])

    # The shared worker's operator allowed no private network, so it says so.
    message = eventually(lambda: Notification.objects.filter(channel=channel).exclude(last_error="").first())
    assert "private" in message.last_error


@pytest.mark.parametrize(
    ("wrong", "member"),
    [
        ({"kind": "pigeon"}, "kind"),
        ({"target": "http://127.0.0.1/"}, "target"),
        ({"target": "not a url"}, "target"),
        ({"kind": "email", "target": "nobody"}, "target"),
        ({"kind": "email", "target": "a@b.example\nBcc: c@d.example"}, "target"),
        ({"events": []}, "events"),
        ({"events": ["birthday"]}, "events"),
    ],
)
def test_a_wrong_channel_is_refused(world, wrong, member):
    channel = {"kind": "webhook", "target": "https://hooks.example.com/", "events": ["failure"]} | wrong
    with pytest.raises(InvalidFields) as refused:
        notifications.create_channel(tenant_id=world.tenant_id, actor=ACTOR, **channel)

    assert set(refused.value.fields) == {member}


def test_a_deleted_channel_gets_nothing_more(world, receiver):
    channel = webhook(world, receiver)
    run(world, world.create(), FAILURE)

    notifications.delete_channel(tenant_id=world.tenant_id, channel_id=channel.id, actor=ACTOR)
    delivery.deliver_due()

    assert receiver.received == []
    assert not Notification.objects.filter(tenant_id=world.tenant_id).exists()
