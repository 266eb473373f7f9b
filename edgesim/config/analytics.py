"""``analytics_engine_datasets`` of a wrangler file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgesim.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


class DatasetConfig(msgspec.Struct):
    """An Analytics Engine dataset on ``env``; without a name it has the binding's."""

    binding: str
    dataset: str | None = None

    @property
    def name(self) -> str:
        """Name of the dataset, which is its table's in SQL."""
        return self.binding if self.dataset is None else self.dataset


def check_datasets(file: Path, datasets: Sequence[DatasetConfig]) -> None:
    """ConfigError for a dataset whose name cannot be a table's."""
    for index, each in enumerate(datasets):
        if not _NAME.fullmatch(each.name):
            problem = (
                f"{each.name[:120]!r} is no name of a dataset: use up to 100 letters, digits, "
                "underscores and dashes"
            )
            raise ConfigError(file, f"analytics_engine_datasets[{index}].dataset", problem)
