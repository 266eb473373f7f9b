"""`edgesim completion`: scripts for shells."""

import subprocess

import pytest

from tests.processes import edgesim

COMPLETE = """
{script}
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE="{words}" COMP_POINT=100
$(complete -p edgesim | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("edgesim re", "replay"),
        ("edgesim queue re", "redrive"),
        ("edgesim r2 ls --pre", "--prefix"),
    ],
)
def test_bash_completes_commands_and_options(words, found):
    """bash completes commands, actions and options."""
    script = edgesim("completion", "bash").stdout
    text = COMPLETE.format(script=script, words=words, last=words.count(" "))
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert found in done.stdout.split(), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell):
    """The scripts of the other shells know the commands too."""
    done = edgesim("completion", shell)
    assert done.returncode == 0
    assert "redrive" in done.stdout
