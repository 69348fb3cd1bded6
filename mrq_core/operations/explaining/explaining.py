"""Why a job or a queue does not run: reasons in words, each with the command that changes it.

The broker is asked several times, so the reasons may be of different moments. `reasons_of_job` does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.contract.naming import check_served_name, is_tree, raw_kind
from mrq_core.contract.queries import JobFilter, KeyUse, Order, QueueCounts, QueuePosition
from mrq_core.contract.record import PRIORITY_MAX, WAITING, JobRecord, Status
from mrq_core.contract.rules import TASK_RULE
from mrq_core.contract.values import check_job_id
from mrq_core.drivers.limits import limit_of, rule_of, spacing_of
from mrq_core.errors import InvalidValue, JobNotFound
from mrq_core.operations.explaining.reasons import (
    Reason,
    ReasonKind,
    Surroundings,
    ago,
    jobs_text,
    listed,
    of_queue,
    of_task,
    queue_text,
    quoted,
    rate_text,
    read_surroundings,
    until_text,
)
from mrq_core.operations.queues import all_counts
from mrq_core.operations.workers import DEAD, listening

_MOST_EXAMINED = 100
"""The most waiting jobs of a queue that an explanation reads."""
_LONGEST_US = 30 * 365 * 86_400 * 1_000_000
"""The longest wait that an explanation adds up."""
_ATTEMPTS = 3
"""How often a job is read again that changes meanwhile."""


def explain(broker: Broker, name: str) -> list[Reason]:
    """Explains the job with this id, or else the queue or tree with this name. Raises JobNotFound, and
    InvalidValue for a name that no queue can have."""
    try:
        check_job_id(name)
    except InvalidValue:
        return explain_queue(broker, name)
    try:
        return explain_job(broker, name)
    except JobNotFound:
        parent = broker.parent_of(name)
        if parent is not None:
            return _of_followup(broker, name, parent)
        if broker.queue_names(prefix=name, limit=1) != [name]:
            raise
    return explain_queue(broker, name)


# --- jobs -------------------------------------------------------------------------------------------


def explain_job(broker: Broker, job_id: str) -> list[Reason]:
    """Why the job is not running, most important first; or that it runs, or how it ended. Raises JobNotFound.

    Seven round trips on most brokers. A job that changes meanwhile is read again.
    """
    record, position = _read(broker, job_id)
    for _ in range(_ATTEMPTS):
        if position is not None or not _is_waiting(record):
            break
        record, position = _read(broker, job_id)
    return reasons_of_job(record, position, read_surroundings(broker))


def _read(broker: Broker, job_id: str) -> tuple[JobRecord, QueuePosition | None]:
    [record] = broker.get([job_id])
    if record is None:
        raise JobNotFound(job_id)
    return record, broker.queue_position(job_id) if _is_waiting(record) else None


def reasons_of_job(record: JobRecord, position: QueuePosition | None, around: Surroundings) -> list[Reason]:
    """The reasons of one job. `position`: None where the job does not wait, or has lost its entry."""
    if record.is_ended:
        return [_ended(record, around.now)]
    if record.status is Status.STARTED:
        until = record.lease_until
        if until is None or until > around.now:
            return [_running(record, around)]
        paused = of_task(record.path, around)
        held = [*([] if paused is None else [paused]), *of_queue(record.queue, around, record.path)]
        return [_lease_ended(record, until, around, is_held=bool(held)), *held]
    shared = of_queue(record.queue, around, record.path)
    if position is None:
        return [*shared, _no_entry(record)]
    reasons = [reason for reason in shared if reason.kind is not ReasonKind.WORKERS_FULL]
    reasons += [*_of_limits(record, position, around), *_of_due_time(record, position, around.now)]
    reasons += [reason for reason in shared if reason.kind is ReasonKind.WORKERS_FULL]
    if position.ahead and position.parked_under is None:
        reasons.append(_behind(record, position))
    return reasons or [_next(record, around)]


def _of_followup(broker: Broker, job_id: str, parent: str) -> list[Reason]:
    """The reason of a follow-up that is stored with an outcome of its parent, and not enqueued yet."""
    [record] = broker.get([parent])
    if record is None:  # enqueued meanwhile, and the parent has expired
        return explain_job(broker, job_id)
    now = broker.now()
    state = f"ended as {record.status}" if record.is_ended else f"not ended: its status is {record.status}"
    sentence = (
        f"It is a follow-up of the job {parent}, which has {state}, {ago(record.updated_at, now)}. The "
        "outcome of the parent holds it, and it is not in its queue yet: workers enqueue it within two "
        "minutes."
    )
    return [Reason(kind=ReasonKind.PARENT, sentence=sentence, command="mrq check --repair")]


def _is_waiting(record: JobRecord) -> bool:
    return record.status.is_waiting and not record.is_ended


def _ended(record: JobRecord, now: datetime) -> Reason:
    why = f" with {record.exception_type}" if record.exception_type else ""
    return Reason(
        kind=ReasonKind.ENDED,
        sentence=f"It has ended as {record.status}{why}, {ago(record.ended_at, now)}.",
        command=f"mrq jobs requeue {record.id}",
    )


def _running(record: JobRecord, around: Surroundings) -> Reason:
    now = around.now
    attempt = f", in its attempt {record.claims}" if record.claims > 1 else ""
    sentence = f"It is running: worker {record.worker} started it {ago(record.started_at, now)}{attempt}."
    silent = next((one for one in around.workers if one.name == record.worker and one.status == DEAD), None)
    if silent is not None:
        then = "fails" if record.at_most_once else "starts again"
        lease = "" if record.lease_until is None else f" {until_text(record.lease_until, now)}"
        sentence = (
            f"Worker {record.worker} started it {ago(record.started_at, now)}{attempt}, and has not reported "
            f"for {ago(silent.reported_at, now, tail='')}. If that worker has died, the job {then} after "
            f"its lease has ended{lease}."
        )
    if record.cancel_requested:
        sentence += " A cancel is requested, so that it will not run again."
    command = f"mrq jobs cancel {record.id} --interrupt"
    return Reason(kind=ReasonKind.RUNNING, sentence=sentence, command=command)


def _lease_ended(record: JobRecord, until: datetime, around: Surroundings, *, is_held: bool) -> Reason:
    is_alive = any(report.name == record.worker for report in around.workers)
    what = "reports, but does not renew its leases" if is_alive else "has not reported since, and may be dead"
    then = "fails it, because it must not run twice" if record.at_most_once else "starts it again"
    if record.cancel_requested:
        then = "cancels it, as requested"
    sentence = (
        f"Its lease has ended {ago(until, around.now)}: worker {record.worker} {what}. "
        f"The next claim from its queue {then}{', once nothing else keeps it back' if is_held else ''}."
    )
    return Reason(kind=ReasonKind.LEASE_ENDED, sentence=sentence)


def _no_entry(record: JobRecord) -> Reason:
    return Reason(
        kind=ReasonKind.NO_ENTRY,
        sentence="It has no waiting entry in its queue: a worker is claiming it at this moment, a crash "
        "between two servers has removed the entry, or Redis has lost the key of the queue.",
        command="mrq check --repair",
    )


def _of_limits(record: JobRecord, position: QueuePosition, around: Surroundings) -> list[Reason]:
    paused = of_task(record.path, around)
    reasons = [] if paused is None else [paused]
    key, now = position.parked_under, around.now
    if key is not None and rule_of(key) == TASK_RULE:
        return reasons or [_task_resumed(record)]
    if key is not None:
        use = next(use for use in position.keys if use.key == key)
        return [*reasons, _parked(position, use, around)]
    if position.allowed_at is not None and position.allowed_at > now:
        reasons.append(_pushed_back(record, position.allowed_at, around))
    return reasons


def _pushed_back(record: JobRecord, allowed_at: datetime, around: Surroundings) -> Reason:
    limits = around.rules.limits
    keys = [key for key in record.limit_keys if (rule := limit_of(key, limits)) and rule.rate]
    when = until_text(allowed_at, around.now)
    if keys:
        sentence = f"The rate of its limit {' and '.join(keys)} lets it start {when}."
        return Reason(kind=ReasonKind.RATE, sentence=sentence)
    return Reason(
        kind=ReasonKind.RATE,
        sentence=f"It starts {when}: an earlier rule of its limit, which has changed since, gave it this "
        "time.",
        command=f"mrq jobs edit {record.id} --in 0",
    )


def _task_resumed(record: JobRecord) -> Reason:
    return Reason(
        kind=ReasonKind.TASK_PAUSED,
        sentence=f"It is parked because its task {record.path} was paused. The pause has ended: one of the "
        "next claims lets it go.",
    )


def _parked(position: QueuePosition, use: KeyUse, around: Surroundings) -> Reason:
    ahead = ""
    if position.ahead:
        ahead = f", behind {_number(position)} other{'s' if position.ahead > 1 else ''}"
    since = "" if position.parked_since is None else f" for {ago(position.parked_since, around.now, tail='')}"
    sentence = f"It is parked under the limit {use.key}{since}"
    rule = limit_of(use.key, around.rules.limits)
    if rule is not None and rule.concurrency == 0:
        return Reason(
            kind=ReasonKind.LIMIT,
            sentence=f"{sentence}{ahead}. The rule {rule_of(use.key)} lets no job run.",
            command=f"mrq limits set {quoted(rule_of(use.key))} --concurrency 1",
        )
    if rule is not None and rule.rate and (rule.concurrency is None or use.running < rule.concurrency):
        return _parked_by_rate(sentence, position, use, rule, around.now)
    sentence += f"{ahead}. "
    if rule is None or (rule.concurrency is not None and 0 < use.running < rule.concurrency):
        sentence += "The limit has room now: the next claims let parked jobs go."
        return Reason(kind=ReasonKind.LIMIT, sentence=sentence)
    if not use.running:
        sentence += "No job runs under the limit: the next claim lets a parked job go."
        return Reason(kind=ReasonKind.LIMIT, sentence=sentence)
    runs = "1 job that runs" if use.running == 1 else f"{use.running:,} jobs that run"
    sentence += f"The limit has no room beside {runs}: {listed(use.holders, use.running)}."
    command = f"mrq jobs cancel {use.holders[0]} --interrupt" if use.holders else None
    return Reason(kind=ReasonKind.LIMIT, sentence=sentence, command=command)


def _parked_by_rate(
    sentence: str, position: QueuePosition, use: KeyUse, rule: Limit, now: datetime
) -> Reason:
    """The time is an estimate: jobs of larger priority may come, and other limits of the job may park it."""
    spacing, name = spacing_of(rule), rule_of(use.key)
    assert spacing is not None
    first = now if use.even_at is None else max(now, use.even_at - timedelta(microseconds=spacing.burst_us))
    start = first + timedelta(microseconds=min(spacing.interval_us * position.ahead, _LONGEST_US))
    before = "It is the next parked job to start"
    if position.ahead:
        before = f"{_number(position)} parked job{'s start' if position.ahead > 1 else ' starts'} before it"
    command = f"mrq limits set {quoted(name)} --rate {2 * (rule.rate or 0):g} --per {rule.per:g}s"
    if rule.concurrency is not None:
        command += f" --concurrency {rule.concurrency}"
    return Reason(
        kind=ReasonKind.RATE,
        sentence=f"{sentence}. The rate of the limit is {rate_text(rule)}. {before}, and the rate lets it "
        f"start about {until_text(start, now)}.",
        command=command,
    )


def _of_due_time(record: JobRecord, position: QueuePosition, now: datetime) -> list[Reason]:
    due_at = position.due_at
    if due_at is None or due_at <= now or position.allowed_at == due_at:
        return []
    why = {
        Status.RETRY: f", for its retry {record.retry_count}",
        Status.INTERRUPT: ", after its attempt was interrupted",
    }.get(record.status, "")
    if record.status is Status.RETRY and record.exception_type:
        why += f" after {record.exception_type}"
    return [
        Reason(
            kind=ReasonKind.DUE_LATER,
            sentence=f"It is due {until_text(due_at, now)}{why}.",
            command=f"mrq jobs edit {record.id} --in 0",
        )
    ]


def _number(position: QueuePosition) -> str:
    return f"{'' if position.is_exact else 'at least '}{position.ahead:,}"


def _behind(record: JobRecord, position: QueuePosition) -> Reason:
    others = "1 other job" if position.ahead == 1 else f"{_number(position)} other jobs"
    can_rise = record.priority < PRIORITY_MAX
    return Reason(
        kind=ReasonKind.BEHIND,
        sentence=f"It is behind {others} of the queue {record.queue}.",
        command=f"mrq jobs edit {record.id} --priority {PRIORITY_MAX}" if can_rise else None,
    )


def _next(record: JobRecord, around: Surroundings) -> Reason:
    names = [report.name for report in listening(record.queue, around.workers)]
    return Reason(
        kind=ReasonKind.NEXT,
        sentence=f"Nothing holds it back: it is due, and the next claim from the queue {record.queue} takes "
        f"it. {listed(names, len(names))} {'claims' if len(names) == 1 else 'claim'} from this queue.",
    )


# --- queues -----------------------------------------------------------------------------------------


def explain_queue(broker: Broker, name: str) -> list[Reason]:
    """Why jobs of a queue or tree are not running, most important first. Raises InvalidValue for a bad name.

    Reads up to 100 waiting jobs. The cost of a tree grows with the number of its subqueues.
    """
    name = check_served_name(name)
    around = read_surroundings(broker)
    counts = _counts(broker, name)
    if raw_kind(name) is not None:
        return [*of_queue(name, around), _raw(broker, name)]
    is_known = is_tree(name) or name in broker.queue_names(prefix=name, limit=1)
    if not counts.waiting:
        return [_empty(name, counts, is_known=is_known), *of_queue(name, around)]
    reasons = of_queue(name, around)
    wanted = JobFilter(queues=(name,), statuses=tuple(WAITING))
    records = broker.find(wanted, order=Order.OLDEST_FIRST, limit=_MOST_EXAMINED).records
    if not counts.due:
        reasons.append(_none_due(name, counts, records, around.now))
    reasons += _denied_in_queue(name, records, around)
    reasons += _parked_in_queue(broker, records, around)
    return reasons or [_served(name, counts, around)]


def _counts(broker: Broker, name: str) -> QueueCounts:
    """The counts of a queue, or the sums of a tree."""
    if not is_tree(name):
        return broker.counts([name])[0]
    found = list(all_counts(broker, name))
    oldest = [counts.oldest_due for counts in found if counts.oldest_due is not None]
    return QueueCounts(
        queue=name,
        waiting=sum(counts.waiting for counts in found),
        due=sum(counts.due for counts in found),
        claimed=sum(counts.claimed for counts in found),
        oldest_due=min(oldest, default=None),
    )


def _empty(name: str, counts: QueueCounts, *, is_known: bool) -> Reason:
    if not is_known:
        return Reason(
            kind=ReasonKind.UNKNOWN,
            sentence=f"No queue {name} holds jobs.",
            command="mrq queues",
        )
    running = (
        f" {jobs_text(counts.claimed)} of it run{'s' if counts.claimed == 1 else ''} now."
        if counts.claimed
        else ""
    )
    return Reason(kind=ReasonKind.EMPTY, sentence=f"No job waits in {queue_text(name)}.{running}")


def _none_due(name: str, counts: QueueCounts, records: Sequence[JobRecord], now: datetime) -> Reason:
    later = [record for record in records if record.due_at is not None and record.due_at > now]
    waits = f"{jobs_text(counts.waiting)} wait{'s' if counts.waiting == 1 else ''}"
    sentence = f"{waits} in {queue_text(name)}, and none is due."
    command = None
    if later:
        first = min(later, key=lambda record: (record.due_at, record.id))
        among = f"Among the oldest {len(records)}, the" if counts.waiting > len(records) else "The"
        assert first.due_at is not None
        sentence += f" {among} next is {first.id}, due {until_text(first.due_at, now)}."
        command = f"mrq jobs edit {first.id} --in 0"
    return Reason(kind=ReasonKind.DUE_LATER, sentence=sentence, command=command)


def _denied_in_queue(name: str, records: Sequence[JobRecord], around: Surroundings) -> list[Reason]:
    """The reason of the first task whose jobs all workers of the queue leave out."""
    for path in dict.fromkeys(record.path for record in records):
        found = [one for one in of_queue(name, around, path) if one.kind is ReasonKind.DENIED]
        if found:
            return found
    return []


def _parked_in_queue(broker: Broker, records: Sequence[JobRecord], around: Surroundings) -> list[Reason]:
    """The reason of the first job that is parked, or whose task is paused. The records of a pair keep the due
    time of a job that a pause has parked."""
    tasks = around.rules.tasks
    found = next((record for record in records if record.due_at is None or record.path in tasks), None)
    position = broker.queue_position(found.id) if found is not None else None
    if found is None or position is None:
        return []
    if position.parked_under is None:
        paused = of_task(found.path, around)
        return [] if paused is None else [paused]
    use = next(use for use in position.keys if use.key == position.parked_under)
    return [_parked_under(found, use, around)]


def _parked_under(record: JobRecord, use: KeyUse, around: Surroundings) -> Reason:
    if rule_of(use.key) == TASK_RULE:
        number = f"{jobs_text(use.parked)} {'are' if use.parked != 1 else 'is'} parked, such as {record.id}."
        return of_task(record.path, around, f" {number}") or _task_resumed(record)
    holders = listed(use.holders, use.running) if use.running else "none"
    rule = limit_of(use.key, around.rules.limits)
    rate = "" if rule is None or not rule.rate else f" Its rate is {rate_text(rule)}."
    return Reason(
        kind=ReasonKind.LIMIT,
        sentence=f"{jobs_text(use.parked)} {'are' if use.parked != 1 else 'is'} parked under the limit "
        f"{use.key}, such as {record.id}. Jobs that run under it: {holders}.{rate}",
        command=f"mrq explain {record.id}",
    )


def _served(name: str, counts: QueueCounts, around: Surroundings) -> Reason:
    names = [report.name for report in listening(name, around.workers)]
    since = (
        "" if counts.oldest_due is None else f", the oldest for {ago(counts.oldest_due, around.now, tail='')}"
    )
    return Reason(
        kind=ReasonKind.NEXT,
        sentence=f"Nothing holds {queue_text(name)} back: {jobs_text(counts.due)} "
        f"{'are' if counts.due != 1 else 'is'} due{since}, and {listed(names, len(names))} "
        f"{'claims' if len(names) == 1 else 'claim'} from it.",
    )


def _raw(broker: Broker, name: str) -> Reason:
    """The parameters of a raw queue, or of the first 1,000 raw queues of a tree."""
    names = broker.queue_names(prefix=name) if is_tree(name) else [name]
    size = sum(broker.raw(queue).size() for queue in names)
    number = "1 parameter waits" if size == 1 else f"{size:,} parameters wait"
    what = "raw queues of the tree" if is_tree(name) else "raw queue"
    return Reason(
        kind=ReasonKind.NEXT if size else ReasonKind.EMPTY,
        sentence=f"{number} in the {what} {name}. A claim makes a job of a parameter.",
    )
