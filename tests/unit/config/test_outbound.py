"""Validation of ``[outbound]`` in edgesim.toml."""

from pathlib import Path

import pytest

from edgesim.config.outbound import allowed
from edgesim.errors import ConfigError

WRONG = [
    *("", " ", "127.0.0.1:0", "127.0.0.1:70000", "10.0.0.0/33", "300.1.1.1", "http://a.b", "a b"),
    *(
        "*.internal",
        "-a.b",
        "a..b",
        "[fd00::1",
        "[x]:1",
        "host:port",
        "host/8",
        "10.0.0.0-10.0.0.9",
    ),
]


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_entry_is_refused(entry):
    """The error is one line with the file, the key with its index, and the allowed forms."""
    with pytest.raises(ConfigError) as caught:
        allowed(Path("p/edgesim.toml"), ["10.0.0.0/8", entry])
    text = str(caught.value)
    assert text.startswith("p/edgesim.toml: outbound.allow[1]: ")
    assert "127.0.0.1:9200" in text
    assert "\n" not in text
