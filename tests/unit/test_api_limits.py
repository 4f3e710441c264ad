"""Quotas of API keys."""

import pytest

from services.webhook.api.limits import RateLimiter
from services.webhook.api.problems import ProblemError


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_a_quota_comes_back_little_by_little() -> None:
    """A minute's requests at once, then one for each part of a minute that has passed."""
    clock = Clock()
    limiter = RateLimiter(60, clock)
    assert [limiter.take("crm").retry_after for _ in range(61)] == [0] * 60 + [1]
    clock.time += 1.5
    assert [limiter.take("crm").retry_after for _ in range(2)] == [0, 1]
    clock.time += 3600
    assert [limiter.take("crm").retry_after for _ in range(61)] == [0] * 60 + [1]


def test_keys_have_their_own_quotas() -> None:
    """One key that asks too much takes nothing from another."""
    limiter = RateLimiter(1, Clock())
    limiter.take("crm")
    with pytest.raises(ProblemError):
        limiter.take("crm").check()
    limiter.take("shop").check()


def test_the_headers_tell_what_is_left() -> None:
    """Policy and rest, as the IETF's draft has them."""
    clock = Clock()
    limiter = RateLimiter(10, clock)
    limiter.take("crm")
    clock.time += 3
    headers = dict(limiter.take("crm").headers)
    assert headers == {
        b"ratelimit-policy": b'"default";q=10;w=60',
        b"ratelimit": b'"default";r=8;t=9',
    }
