"""Convert usage and prices to US dollars.

Included allowances are per account: an item's allowance is divided among its stages in proportion
to their usage.
"""

from __future__ import annotations

import math

import msgspec

from edgesim.cost.prices import Price, Prices
from edgesim.cost.usage import Usage


class BillLine(msgspec.Struct):
    """Cost of one item in one stage; ``article_usd`` is None if the article has no price for it."""

    stage: str
    item: str
    title: str
    quantity: float
    usd: float
    article_usd: float | None = None


class Bill(msgspec.Struct):
    """Bill of a month, or of a run with every unit paid for (no allowances)."""

    prices_as_of: str
    article_as_of: str
    plan_usd: float
    usd: float
    article_usd: float
    lines: list[BillLine]

    def stages(self) -> dict[str, float]:
        """US dollars by stage, in the order of the pipeline."""
        totals: dict[str, float] = {}
        for line in self.lines:
            totals[line.stage] = totals.get(line.stage, 0.0) + line.usd
        return totals


def bill(usage: Usage, prices: Prices, *, included: bool = True) -> Bill:
    """Bill a month's usage; ``included`` False ignores allowances and the plan's price."""
    totals: dict[str, float] = {}
    for items in usage.values():
        for item, quantity in items.items():
            totals[item] = totals.get(item, 0.0) + quantity
    lines = []
    for stage, items in usage.items():
        for item, quantity in items.items():
            if not quantity:
                continue
            price = prices.items[item]
            whole = _cost(totals[item], price, included=included)
            share = whole * quantity / totals[item]
            article = _article(prices, stage, item, quantity)
            lines.append(BillLine(stage, item, price.title, quantity, share, article))
    plan = prices.plan_usd if included else 0.0
    return Bill(
        prices_as_of=prices.as_of,
        article_as_of=prices.article.as_of,
        plan_usd=plan,
        usd=plan + sum(line.usd for line in lines),
        article_usd=sum(line.article_usd or 0.0 for line in lines),
        lines=lines,
    )


def _cost(quantity: float, price: Price, *, included: bool) -> float:
    units = quantity / price.per
    if included:
        units = max(0.0, quantity - price.included) / price.per
        if price.rounded_up:
            units = math.ceil(units)
    return units * price.usd


def _article(prices: Prices, stage: str, item: str, quantity: float) -> float | None:
    price = prices.article.items.get(item)
    if price is None or (price.stages and stage not in price.stages):
        return None
    return quantity / price.per * price.usd
