"""Lifecycle rules that the platform refuses: one line with the place and the cure."""

from pathlib import Path

import pytest

from edgesim.config.lifecycle import RULES_MAX, LifecycleRule, midnight_ms
from edgesim.config.loading import load_project
from edgesim.errors import ConfigError
from tests.simulated import write_worker

RULE = '[[r2.store.lifecycle]]\nname = "{}"\n{}\n'


def load(folder: Path, *rules: str) -> list[LifecycleRule]:
    """Read a project with these rules of its bucket ``store``."""
    write_worker(folder, "w", "")
    (folder / "edgesim.toml").write_text('workers = ["w"]\n' + "".join(rules))
    return load_project(folder).account.r2["store"].lifecycle


def test_rules_are_read(tmp_path):
    """Days may be fractions, dates are TOML dates."""
    rules = load(
        tmp_path,
        RULE.format("a", "expire_days = 0.5"),
        RULE.format("b", "ia_transition_date = 2027-01-31"),
    )
    assert rules[0].expire_days == 0.5
    assert rules[1].ia_transition_date is not None
    assert midnight_ms(rules[1].ia_transition_date) == 1_801_353_600_000


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([("", "expire_days = 1")], r"lifecycle\[0\]: has an empty name"),
        ([("a", "")], r"lifecycle\[0\]: has no action; set expire_days"),
        ([("a", "enabled = false")], r"lifecycle\[0\]: has no action"),
        (
            [("a", "expire_days = 1\nexpire_date = 2027-01-31")],
            r"lifecycle\[0\]: has both expire_days and expire_date; keep one",
        ),
        (
            [("a", "expire_days = 1"), ("a", "ia_transition_days = 1")],
            r"lifecycle\[1\].name: 'a' is another rule's name",
        ),
        ([("a", "expire_days = -1")], r"expire_days"),
        ([("a", 'expire_date = "soon"')], r"expire_date"),
        ([("a", "expire_day = 1")], r"expire_day"),
        (
            [(f"r{number}", "expire_days = 1") for number in range(RULES_MAX + 1)],
            r"1001 rules; a bucket has at most 1000",
        ),
    ],
)
def test_wrong_rules_are_one_line(tmp_path, rules, said):
    """The error has the file, the rule's place and the problem."""
    with pytest.raises(ConfigError, match=said) as refused:
        load(tmp_path, *(RULE.format(*rule) for rule in rules))
    assert "edgesim.toml" in str(refused.value)
    assert "\n" not in str(refused.value)
