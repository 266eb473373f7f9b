"""Comparison of backend URLs, without their secrets."""

import pytest

from edgesim.urls import same_place


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nats://h1:4222/shop", "NATS://H1:4222/shop/"),
        ("nats://h1:4222,h2:4222/shop", "nats://h2:4222,h1:4222/shop"),
        ("nats://h/shop?replicas=3&tls=true", "nats://h/shop?tls=true&replicas=3"),
        ("clickhouse://user:secret@db:9000/events", "clickhouse://db:9000/events"),
        ("clickhouse://me:p%40ss@db:9000/events", "clickhouse://you@db:9000/events"),
        ("sqlite:/tmp/a/../b.db", "sqlite:/tmp/b.db"),
        ("memory:", "memory:"),
    ],
)
def test_same_place(one, other):
    """URLs that differ only in spelling or credentials name the same place."""
    assert same_place(one) == same_place(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nats://h1:4222/shop", "nats://h1:4223/shop"),
        ("nats://h1:4222/shop", "nats://h1:4222/Shop"),
        ("nats://h1:4222/shop", "nats://h1:4222"),
        ("nats://h/shop?replicas=3", "nats://h/shop"),
        ("sqlite:/tmp/a.db", "sqlite:/tmp/b.db"),
        ("memory:", "sqlite:/tmp/b.db"),
        ("s3://h:9000?secure=false", "s3://h:9000?secure=true"),
    ],
)
def test_other_place(one, other):
    """URLs with another server, port, name, path or option name different places."""
    assert same_place(one) != same_place(other)


def test_no_secret_is_shown():
    """User and password are left out, also if the address is malformed."""
    for url in ("clickhouse://me:hush@db/x", "nats://me:hush@h1,h2/x", "s3://me:hu@sh@h?x=1"):
        assert "hush" not in same_place(url)
        assert "me" not in same_place(url)
