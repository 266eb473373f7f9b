"""The price table: ``prices.toml`` beside this file, dated, the only place where prices are set."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("prices.toml")


class Price(msgspec.Struct, forbid_unknown_fields=True):
    """Price in US dollars of ``per`` units beyond the ``included`` units of a month."""

    title: str
    usd: float
    per: float
    included: float = 0.0
    rounded_up: bool = False


class ArticlePrice(msgspec.Struct, forbid_unknown_fields=True):
    """A price in the article; an empty ``stages`` means every stage."""

    usd: float
    per: float
    stages: list[str] = []


class Article(msgspec.Struct, forbid_unknown_fields=True):
    """The article's prices by item."""

    as_of: str
    items: dict[str, ArticlePrice]


class Prices(msgspec.Struct, forbid_unknown_fields=True):
    """The whole table; ``plan_usd`` is the monthly base price in US dollars."""

    as_of: str
    plan_usd: float
    items: dict[str, Price]
    article: Article


def read_prices() -> Prices:
    """Read the table of this version of edgesim."""
    return msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), Prices)
