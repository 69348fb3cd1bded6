"""The broker made of two drivers: a queue from one, a store from another."""

from mrq_core.composed.broker import ComposedBroker

__all__ = ["ComposedBroker"]
