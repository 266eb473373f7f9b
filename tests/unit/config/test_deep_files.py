"""Configuration files that are nested without end."""

import pytest

from edgesim.config.files import read_table
from edgesim.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wrangler.toml", "deep = " + "[" * 100_000),
        ("edgesim.toml", "a" + ".b" * 20_000 + " = 1"),
        ("wrangler.jsonc", '{"deep":' * 200_000),
    ],
)
def test_deep_file_is_refused_in_one_line(name, text, tmp_path):
    """The error names the file and the cure, and is no RecursionError."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"{name}.*nested too deeply") as caught:
        read_table(file)
    assert "\n" not in str(caught.value)
