"""Fixtures of the tests of integrations."""

from tests.integrations.redis_server import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]
