"""The gevent worker."""
