"""What pymongo's errors mean to a user of the broker: what was found, and what to do."""

from __future__ import annotations

import re

from bson.errors import BSONError, InvalidBSON, InvalidDocument
from pymongo import errors

from mrq_broker_mongo.server.location import Location
from mrq_core.drivers import open_files
from mrq_core.drivers.certificates import advice_on_certificate
from mrq_core.errors import BrokerCorrupt, BrokerError, BrokerUnavailable, CallRefused, RecordTooLarge

UNAUTHORIZED, LOGIN_FAILED, NAMESPACE_EXISTS, NO_SPACE, DUPLICATE = 13, 18, 48, 14031, 11000
NO_COLLECTION, NO_INDEX = 26, 27
_ILLEGAL_OPERATION = 20
_TOO_LARGE = frozenset({10334, 17280, 17419, 17420, 51272})
"""Codes of a document, or an index entry, that is larger than the server takes."""
_UNSATISFIABLE = frozenset({79, 100})
"""Codes of a write concern that the members of the replica set cannot satisfy."""
_TRANSIENT = frozenset({6, 7, 89, 91, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
"""Codes of a server that stops, or is no primary any more."""
_NO_THREAD = "can't start new thread"
"""The message of the RuntimeError of a process that can start no thread."""
_WITH_TLS = re.compile(r"^mongodb\+srv:|[?&](?:tls|ssl)=true", re.IGNORECASE)
"""A URL with TLS."""
_TIMEOUTS = re.compile(r" \(configured timeouts:[^)]*\)|, Timeout: [\d.]+s")


def is_unread(error: AttributeError) -> bool:
    """Whether pymongo met an answer that a write was not confirmed, as of a primary that leaves, and could
    not read it: its `_check_command_response` changes what a registry of types has made read-only (in 4.20).
    """
    return "RawBSONDocument" in str(error)


def is_lost(error: Exception) -> bool:
    """Whether the connection, or the primary, was lost, so that another attempt may find it again."""
    if isinstance(error, AttributeError):
        return is_unread(error)
    if isinstance(error, errors.NetworkTimeout | errors.ServerSelectionTimeoutError):
        return False
    if isinstance(error, errors.AutoReconnect):
        return True
    return isinstance(error, errors.OperationFailure) and (error.code in _TRANSIENT or _is_mistaken(error))


def _is_mistaken(error: errors.OperationFailure) -> bool:
    """Whether pymongo has numbered a write for a server that stands alone, which refuses that: it does so
    when it has not yet looked at one that was started again. Nothing was written."""
    said = str((error.details or {}).get("errmsg", ""))
    return error.code == _ILLEGAL_OPERATION and "Transaction numbers" in said


def is_duplicate(error: Exception) -> bool:
    """Whether the server's only objection is that documents are there already: callers see to that."""
    if isinstance(error, errors.BulkWriteError):
        problems = error.details.get("writeErrors", []) if error.details else []
        late = error.details.get("writeConcernErrors") if error.details else None
        return bool(problems) and not late and all(one.get("code") == DUPLICATE for one in problems)
    return isinstance(error, errors.DuplicateKeyError)


def translated(error: Exception, location: Location, timeout: float) -> BrokerError:
    """The error of the broker that says the same."""
    where, limits = location.shown, location.limits
    text = _short(str(error))
    if isinstance(error, errors.WaitQueueTimeoutError):
        return BrokerUnavailable(
            f"no connection to MongoDB at {where} is free ({text}): give a larger maxPoolSize in the URL, or "
            "a longer waitQueueTimeoutMS"
        )
    if isinstance(error, errors.WTimeoutError) and "wtimeoutms" in limits:
        return BrokerUnavailable(
            f"MongoDB at {where} did not confirm a write within {limits['wtimeoutms']} of the URL ({text}), "
            "which may be stored nevertheless: give more milliseconds, or leave the option out"
        )
    if isinstance(error, errors.NetworkTimeout | errors.WTimeoutError | errors.ExecutionTimeout):
        return BrokerUnavailable(
            f"MongoDB at {where} did not answer within {timeout:g} s ({text}): it is overloaded, the network "
            "is, or a majority of the replica set is away; try again, or raise BROKER_TIMEOUT"
        )
    if isinstance(error, errors.ServerSelectionTimeoutError) and "Authentication failed" in text:
        return _refused_user(where, text)
    if isinstance(error, errors.NotPrimaryError):
        return _no_primary(where, text)
    if isinstance(error, AttributeError):
        return _no_primary(where, "a write was not confirmed")
    if isinstance(error, errors.ConnectionFailure | OSError):
        return BrokerUnavailable(f"MongoDB at {where} cannot be reached ({text}): {_advice(text, location)}")
    if isinstance(error, errors.InvalidOperation):
        return BrokerUnavailable(f"the broker of {where} was closed: open another one")
    if isinstance(error, errors.OperationFailure) and _is_mistaken(error):
        return BrokerUnavailable(f"MongoDB at {where} was started again in this moment: try again")
    if isinstance(error, errors.OperationFailure):
        return _refused(error, location, text)
    if isinstance(error, InvalidBSON):
        return BrokerCorrupt(f"MongoDB at {where} sent what cannot be read ({text}): see `mrq check`")
    if isinstance(error, BSONError | InvalidDocument):
        return _too_large(text)
    if isinstance(error, SystemError):  # see `Connection`
        return BrokerUnavailable(
            f"a call to MongoDB at {where} was interrupted, probably by a signal handler that raised an "
            f"exception ({text}): repeat the call"
        )
    if isinstance(error, errors.ConfigurationError):
        return BrokerUnavailable(f"MongoDB at {where} cannot be used ({text}): correct the URL")
    return BrokerUnavailable(f"MongoDB at {where} is not usable ({type(error).__name__}: {text})")


def is_login_failure(error: BaseException) -> bool:
    """Whether the server has refused the user or the password."""
    return isinstance(error, errors.OperationFailure) and error.code == LOGIN_FAILED


def lacks_threads(error: BaseException) -> bool:
    """Whether pymongo could not start one of its threads."""
    return isinstance(error, RuntimeError) and _NO_THREAD in str(error)


def without_threads(error: BaseException, location: Location) -> BrokerUnavailable:
    """The error for a call that needs such a thread."""
    return BrokerUnavailable(
        f"MongoDB at {location.shown} cannot be called ({error}): pymongo needs threads; end other processes "
        "of this user, or raise the limit of processes: `ulimit -u`, TasksMax of systemd, or pids.max of the "
        "container"
    )


def passed_on(raised: BaseException, where: str) -> BaseException:
    """The exception of a signal handler that interrupted a call, for the caller. A BrokerUnavailable names it
    where pymongo has dropped it."""
    if not isinstance(raised, BSONError):
        return raised
    return BrokerUnavailable(
        f"a call to MongoDB at {where} was interrupted by a signal handler, which raised an exception "
        f"({_short(str(raised))}): repeat the call"
    )


def _advice(text: str, location: Location) -> str:
    """What to do about a server that cannot be reached."""
    advice, limits = _advice_for(text, location.shown), location.limits
    short = [limits[name] for name in ("connecttimeoutms", "serverselectiontimeoutms") if name in limits]
    is_late = any(part in text for part in ("timed out", "No servers found", "Timeout"))
    return f"{advice}; or give more milliseconds than {' and '.join(short)}" if short and is_late else advice


def _advice_for(text: str, where: str) -> str:
    is_closed = any(part in text for part in ("reset by peer", "connection closed", "EOF occurred"))
    if "Too many open files" in text:
        return open_files.advice()
    if "Got response id" in text:
        return "the server there does not speak the protocol of MongoDB: correct the URL"
    if (refused := advice_on_certificate(text, "tlsCAFile")) is not None:
        return refused
    if 'No servers match selector "Primary()"' in text:
        return (
            "the servers there are reached, but none is the primary of a replica set: initiate the set "
            "(rs.initiate()), or wait until its members have elected one"
        )
    if "No replica set members available for replica set name" in text:
        return "no server there belongs to a replica set of this name: correct replicaSet in the URL"
    if "SSL handshake failed" in text and "EOF occurred" in text:
        return (
            "a server without TLS needs a URL without tls=true, and one that wants a certificate of its "
            "clients needs one that it trusts there, as tlsCertificateKeyFile; else correct the URL and the "
            "network"
        )
    if _WITH_TLS.search(where) and (is_closed or "alert" in text or "certificate required" in text):
        return (
            "a server that wants a certificate of its clients needs one that it trusts in the URL, as "
            "tlsCertificateKeyFile; else start it, or correct the URL and the network"
        )
    if "SSL handshake failed" in text:
        return "a server without TLS needs a URL without tls=true; else correct the URL and the network"
    if is_closed or "timed out" in text or "No servers found" in text:
        return (
            "start it, or correct the URL and the network; a server with TLS needs tls=true in the URL, and "
            "another program may have this port"
        )
    return "start it, or correct the URL and the network"


def _short(text: str) -> str:
    """What pymongo says, without all that it knows of the servers, and without the documents themselves."""
    for behind in (", Topology Description", ", full error"):
        text = text.partition(behind)[0]
    text = _TIMEOUTS.sub("", text)
    return " ".join(text.split())[:300]


def _refused(error: errors.OperationFailure, location: Location, text: str) -> BrokerError:
    where = location.shown
    codes, reason = _reasons(error)
    text = reason or text
    if codes & _TRANSIENT:
        return _no_primary(where, text)
    if codes & {UNAUTHORIZED, LOGIN_FAILED}:
        return _refused_user(where, text, CallRefused if UNAUTHORIZED in codes else BrokerUnavailable)
    if codes & _UNSATISFIABLE or "cannot use 'w'" in text or "'w' mode" in text:
        return BrokerUnavailable(
            f"MongoDB at {where} cannot write with w={location.concern.document['w']} ({text}): correct w in "
            "the URL, or leave it out, for a majority"
        )
    if NO_SPACE in codes or "No space left" in text:
        return CallRefused(f"MongoDB at {where} cannot write to its disk ({text}): free some space")
    if "hint provided" in str(error):
        return BrokerUnavailable(
            f"MongoDB at {where} lacks an index that this call needs: `mrq check` names the index, and "
            "`mrq check --fix` creates it"
        )
    if codes & _TOO_LARGE:
        return _too_large(text.partition(" First element")[0])
    return BrokerError(f"MongoDB at {where} refused a call: {text}")


def _reasons(error: errors.OperationFailure) -> tuple[set[int | None], str]:
    """The codes in an error, those of each write included, and what the first of these writes met."""
    details = error.details or {}
    writes = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
    reasons = [_short(str(one.get("errmsg", ""))) for one in writes]
    return {error.code, *(one.get("code") for one in writes)}, reasons[0] if reasons else ""


def _no_primary(where: str, text: str) -> BrokerError:
    return BrokerUnavailable(
        f"MongoDB at {where} has no primary at the moment ({text}): try again; if it goes on, name all "
        "members of the replica set in the URL, without directConnection"
    )


def _refused_user(where: str, text: str, kind: type[BrokerUnavailable] = BrokerUnavailable) -> BrokerError:
    return kind(
        f"MongoDB at {where} refused this user ({text}): correct the URL, or give the user the role "
        "readWrite on the database"
    )


def _too_large(text: str) -> RecordTooLarge:
    return RecordTooLarge(
        f"a value cannot be stored in MongoDB ({text}): a job with its params and its result takes 16 MB at "
        "most; store what is larger elsewhere, and its name in the job"
    )
