"""Zones as libraries write them, with less than Python asks for."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo


class NoOffset(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> None:
        return None


class BrokenOffset(NoOffset):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise ZeroDivisionError("no such zone")


class HugeOffset(NoOffset):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(days=3)
