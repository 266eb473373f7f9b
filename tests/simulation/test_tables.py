"""Seeds of random sends and faults: each row is in each Parquet file and Iceberg table once."""

from collections.abc import Iterator

import pytest

from tests.simulation.run import Simulation, open_simulation
from tests.simulation.scenarios import SCENARIOS

SEEDS = (0, 2)
TABLES = SCENARIOS["tables"]


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with open_simulation() as opened:
        yield opened


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_of_tables_is_clean(simulation, seed):
    """Kills, power cuts, lost replies and failing stores: no checker reports a violation."""
    report = simulation.run(TABLES, seed)
    assert [f"{each.checker}: {each.problem}" for each in report.violations] == []
    assert report.drained


@pytest.mark.timeout(600)
def test_the_checker_notices(simulation, monkeypatch):
    """A sink that commits no file is reported."""
    method = "edgesim.pipelines.sinks.catalog_table.CatalogTable._commit"

    async def forget(*_: object) -> None:
        pass

    monkeypatch.setattr(method, forget)
    report = simulation.run(TABLES, 0)
    assert any("rows are not in the table" in each.problem for each in report.violations)
