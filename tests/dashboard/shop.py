"""A shop on an ordinary afternoon with some trouble: the data of the images in the documentation."""

from __future__ import annotations

import random
from typing import Any

from mrq_core.client.client import Client
from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Note
from mrq_core.contract.metrics import ENDED, ERRORS, STARTED, UNFINISHED, Metric, measured
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import Status
from mrq_core.contract.terms import error_group
from mrq_core.operations.limits import set_limit
from mrq_core.operations.queries.saved_views import save_view
from mrq_core.operations.queues import pause_queues
from mrq_core.operations.schedules import SCHEDULERS, add_schedule
from mrq_core.scheduler.definitions import Definition
from tests.dashboard import scenes

# Queue, task, jobs a minute, run time in seconds, share that fails, exception, frame.
_WORK = (
    ("mail", "shop.mail.SendReceipt", 46, 0.24, 0.0, "shop.smtp.Refused", "shop.smtp:send"),
    ("mail", "shop.mail.SendNewsletter", 21, 0.31, 0.05, "shop.smtp.Refused", "shop.smtp:send"),
    ("images", "shop.images.Resize", 34, 1.4, 0.012, "PIL.UnidentifiedImageError", "shop.images:resize"),
    ("search", "shop.search.Index", 58, 0.06, 0.0, "", ""),
    ("payments", "shop.payments.Capture", 12, 0.9, 0.04, "requests.ReadTimeout", "shop.psp:capture"),
    ("default", "shop.carts.Expire", 17, 0.03, 0.0, "", ""),
)  # fmt: skip
_MESSAGES = {
    "shop.smtp.Refused": "451 too many connections from this host",
    "PIL.UnidentifiedImageError": "cannot identify image file 'upload-8812.heic'",
    "requests.ReadTimeout": "psp.example.com did not answer within 10 s",
}
_TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/payments.py", line 58, in run
    receipt = psp.capture(order.charge, amount=order.total)
  File "/srv/shop/psp.py", line 131, in capture
    answer = self.session.post(url, json=body, timeout=10)
requests.ReadTimeout: psp.example.com did not answer within 10 s
"""


def fill(client: Client) -> dict[str, str]:
    """Fills the broker. Returns the paths of pages that are worth an image, by name."""
    broker, chance = client.broker, random.Random(11)
    broker.prepare()
    payment = _jobs(broker, chance)
    _waiting(broker)
    _workers(broker, chance)
    _metrics(broker, chance)
    broker.state.put(SCHEDULERS, "worker-a.web-1.4120", {}, ttl=600.0)
    times: dict[str, Any]
    for name, path, times in (
        ("nightly report", "shop.reports.Daily", {"dailytime": "02:30"}),
        ("expire carts", "shop.carts.Expire", {"interval": 900.0}),
        ("rates", "shop.payments.FetchRates", {"cron": "*/20 8-18 * * 1-5"}),
    ):
        add_schedule(broker, Definition(name=name, path=path, **times))
    save_view(broker, "payments that fail", "path:shop.payments.* status:failed,timeout,maxretries")
    group = error_group("shop.payments.Capture", "requests.ReadTimeout", "shop.psp:capture") or ""
    return {
        "overview": "/",
        "jobs": "/jobs?q=is:still-failing",
        "job": f"/jobs/{payment}",
        "queue": "/queues?name=payments",
        "queues": "/queues",
        "exception": f"/exceptions?group={group.replace(' ', '+')}",
        "task": "/tasks/shop.images.Resize",
        "workers": "/workers",
    }


def _jobs(broker: Broker, chance: random.Random) -> str:
    """Ended jobs of all tasks. Returns the id of a payment that failed at its third attempt."""
    for queue, path, number, seconds, failing, exception, frame in _WORK:
        for order in range(number):
            params = {"order": 48_210 + order} if queue in ("payments", "mail") else {"id": 9_000 + order}
            scenes.put(broker, queue, path, params=params)
        taken = scenes.take(broker, queue, number)
        failed = taken[:: max(1, number // 3)][: 3 if failing else 0]
        good = [one for one in taken if one not in failed]
        if failed:
            more: dict[str, Any] = {"exception_type": exception, "exception_message": _MESSAGES[exception],
                    "error_group": error_group(path, exception, frame), "traceback": _TRACEBACK,
                    "total_time": 3 * seconds}  # fmt: skip
            scenes.fail(broker, failed, **more)
        half = len(good) if exception in ("", "shop.smtp.Refused") else 0
        scenes.end(broker, good[:half], Status.SUCCESS, result={"ok": True}, total_time=seconds)
        if good[half:]:
            scenes.end(broker, good[half:], Status.SUCCESS, total_time=chance.uniform(0.5, 2) * seconds)
    payment = scenes.put(
        broker, "payments", "shop.payments.Capture", params={"order": 48_377, "amount": 129.9}
    )
    for attempt in (1, 2, 3):
        [record] = scenes.take(broker, "payments")
        lines = (("INFO", "capturing 129.90 EUR of order 48377"), ("WARNING", "psp.example.com is slow: 5 s"),
                 ("ERROR", f"no answer after 10 s, attempt {attempt}"))  # fmt: skip
        broker.append_logs(
            [LogLine(job_id=payment, attempt=attempt, seq=seq, at=broker.now(), level=level, message=text)
             for seq, (level, text) in enumerate(lines, start=1)], 100_000,
        )  # fmt: skip
        failure: dict[str, Any] = {"exception_type": "requests.ReadTimeout", "traceback": _TRACEBACK,
                   "exception_message": _MESSAGES["requests.ReadTimeout"], "total_time": 10.0,
                   "error_group": error_group("shop.payments.Capture", "requests.ReadTimeout",
                                              "shop.psp:capture")}  # fmt: skip
        if attempt < 3:
            scenes.fail(broker, [record], Status.RETRY, delay=0.0, is_retry=True, **failure)
        else:
            scenes.fail(broker, [record], Status.MAXRETRIES, **failure)
    return payment


def _waiting(broker: Broker) -> None:
    long_ago = after(broker.now(), -1260.0)
    for number in range(38):
        scenes.put(broker, "reports/daily", "shop.reports.Daily", params={"day": number}, due_at=long_ago)
    pause_queues(broker, ["reports/"])
    for number in range(14):
        scenes.put(broker, "payments", "shop.payments.Capture", params={"order": 48_400 + number})
    for number in range(61):
        scenes.put(broker, "search", "shop.search.Index", params={"id": 700 + number})
    set_limit(broker, "psp", concurrency=2)
    for _ in range(2):
        scenes.put(broker, "images", "shop.images.Resize", params={"image": "upload-9012.jpg"})
    taken = scenes.take(broker, "images", 2)
    broker.annotate([Note(id=one.id, token=one.token or "", progress=0.4) for one in taken])


def _workers(broker: Broker, chance: random.Random) -> None:
    for number, (name, queues, status) in enumerate(
        (
            ("worker-a.web-1.4120", ("payments", "mail", "default"), "spawn"),
            ("worker-b.web-1.4121", ("payments", "mail", "default"), "spawn"),
            ("worker-c.web-2.977", ("images",), "full"),
            ("worker-d.web-2.978", ("search", "default"), "spawn"),
            ("worker-e.web-3.31", ("images",), "full"),
        )
    ):
        memory, history = 160e6 + 20e6 * number, []
        for _ in range(60):
            memory += chance.gauss(0.1e6, 1.5e6)
            history.append(int(memory))
        scenes.report(
            broker, name, silent=2000.0 if name.startswith("worker-e") else 1.0, host=name.split(".")[1],
            pid=int(name.rpartition(".")[2]), queues=queues, status=status, memory=history[-1],
            memory_history=tuple(history), cpu=chance.uniform(0.2, 0.8), usage=chance.uniform(0.3, 0.9),
            jobs={"success": chance.randint(20_000, 60_000), "failed": chance.randint(20, 900)},
            running_jobs=number + 1, interval=600.0,
            cpu_history=tuple(chance.uniform(0.2, 0.8) for _ in range(60)),
        )  # fmt: skip


def _metrics(broker: Broker, chance: random.Random) -> None:
    now = broker.now()
    moments = [(after(now, -60.0 * minute), minute, 1) for minute in range(180)]
    moments += [(after(now, -3600.0 * hour), 60 * hour, 60) for hour in range(3, 72)]
    made: list[Metric] = []
    for at, minute, times in moments:
        wave = 1 + 0.35 * chance.random() + (0.5 if (minute // 25) % 3 == 0 else 0)
        for queue, path, usual, seconds, failing, exception, frame in _WORK:
            number = max(1, int(usual * wave * (times if times == 1 else 6)))
            tags = {"queue": queue, "task": path}
            trouble = 4.0 if queue == "payments" and minute < 35 else 1.0
            waits = [chance.lognormvariate(-3.2, 0.9) * trouble * 6 for _ in range(number)]
            runs = [seconds * chance.lognormvariate(-0.1, 0.5) for _ in range(number)]
            failed = sum(chance.random() < failing * trouble for _ in range(number))
            made.append(measured(STARTED, at, _tags(tags), waits))
            made.append(measured(ENDED, at, _tags({**tags, "status": "success"}), runs[failed:] or runs))
            if failed:
                made.append(measured(ENDED, at, _tags({**tags, "status": "failed"}), runs[:failed]))
                group = error_group(path, exception, frame)
                made.append(Metric(name=ERRORS, at=at, tags=(("group", group), ("task", path)), count=failed))
        if times == 1:
            for queue, size in (("mail", 3.0), ("payments", max(0.0, 14.0 - minute / 3)), ("search", 60.0)):
                made.append(measured(UNFINISHED, at, (("queue", queue),), [size]))
    for start in range(0, len(made), 500):
        broker.record_metrics(made[start : start + 500])


def _tags(tags: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(tags.items()))
