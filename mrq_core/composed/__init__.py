"""The broker made of two drivers: a queue from one, a store from another."""
