"""The price table: ``prices.toml`` beside this file, dated, and the only place of a price."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("prices.toml")


class Price(msgspec.Struct, forbid_unknown_fields=True):
    """``usd`` for ``per`` units, beyond what is ``included`` a month."""

    title: str
    usd: float
    per: float
    included: float = 0.0
    rounded_up: bool = False


class ArticlePrice(msgspec.Struct, forbid_unknown_fields=True):
    """A price of the article's; ``stages`` empty: of every stage."""

    usd: float
    per: float
    stages: list[str] = []


class Article(msgspec.Struct, forbid_unknown_fields=True):
    """The article's prices, by item."""

    as_of: str
    items: dict[str, ArticlePrice]


class Prices(msgspec.Struct, forbid_unknown_fields=True):
    """The whole table; ``plan_usd`` is what a month costs before anything is used."""

    as_of: str
    plan_usd: float
    items: dict[str, Price]
    article: Article


def read_prices() -> Prices:
    """The table of this version of edgesim."""
    return msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), Prices)
