"""Numbers of thousands of digits in a configuration file are an error of that file."""

import pytest

from edgesim.config.files import read_table
from edgesim.errors import ConfigError

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("name", "text"), [("edgesim.toml", f"x = {DIGITS}"), ("wrangler.jsonc", f'{{"x": {DIGITS}}}')]
)
def test_too_many_digits_are_an_error_of_the_file(tmp_path, name, text):
    """The error names the file."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name}.*too many digits"):
        read_table(tmp_path / name)
