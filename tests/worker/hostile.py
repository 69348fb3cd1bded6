"""The sources of hostile tasks and plugins."""

from __future__ import annotations

HOSTILE = '''
import sys
import time
import gevent
from mrq_core import task
from mrq_core.errors import TimeoutInterrupt
from tasks import note


def hostile(*arguments):
    raise SystemExit("hostile")


class Looks(Exception):
    """Raises for each attribute that it does not have."""

    def __getattr__(self, name):
        return self.values[name]


class Denies(Exception):
    __str__ = __repr__ = __bool__ = __len__ = __eq__ = hostile
    __class__ = __traceback__ = __cause__ = __context__ = __notes__ = property(hostile)
    __suppress_context__ = with_traceback = add_note = property(hostile)
    __hash__ = None


class DeniesAll(BaseException):
    def __getattribute__(self, name):
        raise KeyboardInterrupt(name)

    __str__ = hostile


class Poses(Exception):
    """Says that it is a timeout."""

    __class__ = property(lambda self: TimeoutInterrupt)


class Kind(type):
    def __getattribute__(self, name):
        raise RuntimeError(name)


class Nameless(Exception, metaclass=Kind):
    pass


class Sleeps(Exception):
    def __str__(self):
        time.sleep(1000)


class OddText(str):
    __format__ = __len__ = __getitem__ = __add__ = __radd__ = isascii = encode = hostile


class Odd(Exception):
    def __str__(self):
        return OddText("odd")


class Named(Exception):
    __module__ = "\\0\\udc80"


def chained(number):
    error = None
    for index in range(number):
        error, before = ValueError(index), error
        error.__cause__ = before
    return error


def cyclic():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def nested(depth):
    error = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("nested", [error])
    return error


def deep(frames):
    return deep(frames - 1) if frames else 1 / 0


ERRORS = {
    "looks": lambda: Looks("text"),
    "denies": Denies,
    "denies_all": DeniesAll,
    "poses": Poses,
    "nameless": lambda: Nameless("text"),
    "odd": Odd,
    "named": Named,
    "group": lambda: ExceptionGroup("group", [Looks("text"), Denies(), Nameless()]),
    "wide_group": lambda: ExceptionGroup("wide", [ValueError(n) for n in range(100_000)]),
    "deep_group": lambda: nested(10_000),
    "long_chain": lambda: chained(10_000),
    "cycle": cyclic,
    "huge": lambda: ValueError("x" * 50_000_000),
    "surrogates": lambda: ValueError("\\udc80 and \\0"),
    "greenlet_exit": gevent.GreenletExit,
    "generator_exit": GeneratorExit,
    "timeout_of_gevent": lambda: gevent.Timeout(1000),
    "keyboard": KeyboardInterrupt,
}


def raise_error(how):
    if how == "deep":
        sys.setrecursionlimit(200_000)
        deep(100_000)
    if how == "from_denied":
        try:
            raise Denies
        except BaseException as error:
            raise ValueError("after") from error
    raise ERRORS[how]()


@task(retry_on=(LookupError,))
def raises(how: str):
    raise_error(how)


@task(isolate=True)
def raises_solo(how: str):
    raise_error(how)


@task
def raises_in_thread(how: str):
    gevent.get_hub().threadpool.apply(raise_error, (how,))


@task
def raises_in_greenlet(how: str):
    gevent.spawn(raise_error, how).get()


@task(timeout=0.5)
def sleeps_in_str():
    raise Sleeps


class Value:
    __repr__ = __eq__ = __iter__ = __len__ = __bool__ = __getattr__ = hostile
    __hash__ = None
    __class__ = property(hostile)


class Unreadable(dict):
    def items(self):
        raise LookupError("no items")


class Keys:
    def keys(self):
        raise LookupError("no keys")


class Text(str):
    __str__ = __eq__ = isascii = hostile
    __hash__ = None


class Key(str):
    __repr__ = __contains__ = __str__ = isascii = hostile


class Number(int):
    __le__ = __ge__ = __lt__ = __gt__ = lambda self, other: True
    __int__ = __index__ = lambda self: 5


def generates():
    try:
        yield 1
    finally:
        hostile()


def started():
    generator = generates()
    next(generator)
    return generator


def recursive():
    value = []
    value += [value, value]
    return value


VALUES = {
    "value": Value,
    "unreadable": lambda: Unreadable(a=1),
    "keys": Keys,
    "text": lambda: Text("text"),
    "big_number": lambda: Number(10**30),
    "small_number": lambda: Number(7),
    "digits": lambda: int("9" * 4000) ** 3,
    "recursive": recursive,
    "odd_keys": lambda: {1: "one"},
    "odd_key": lambda: {Key("key"): 1},
    "generator": generates,
    "started": started,
    "exception": lambda: ValueError("returned"),
    "bytes": lambda: b"bytes",
    "nan": lambda: [float("nan")],
    "surrogates": lambda: "\\udc80",
}


@task
def returns(how: str):
    return VALUES[how]()


@task(isolate=True)
def returns_solo(how: str):
    return VALUES[how]()


@task(timeout=0.5)
def swallows(value: object = None, seconds: float = 0):
    note("swallows")
    try:
        time.sleep(1000)
    except BaseException:
        pass
    return value


@task(timeout=0.5, isolate=True)
def swallows_solo():
    return swallows.function("kept")


@task(timeout=0)
def swallows_later():
    return swallows.function("kept")
'''

RAISED = [
    "LookupError",
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "GreenletExit",
    "Timeout",
    "Own",
    "Denying",
    "bodiless",
]
"""What hooks raise."""

RAISING = """
import os
import time
import gevent
from gevent import GreenletExit, Timeout
from mrq_core import hookimpl


class Own(BaseException):
    def __str__(self):
        raise SystemExit("hostile")

    with_traceback = add_note = property(__str__)


class Denying(BaseException):
    def __getattribute__(self, name):
        raise SystemExit(name)


def bodiless(text):
    class Kind(type):
        def __getattribute__(self, name):
            raise KeyboardInterrupt(name)

    class Bodiless(Exception, metaclass=Kind):
        __class__ = property(lambda self: 1 / 0)

    return Bodiless(text)


def get(name):
    return {**vars(__builtins__), **globals()}[name] if not isinstance(__builtins__, dict) else {
        **__builtins__, **globals()}[name]


def fail():
    error = get(os.environ["RAISED"])
    raise error(1000) if error is Timeout else error("hostile")
"""
