"""edgesim completion: print a script that completes commands and options in a shell.

For bash: eval "$(edgesim completion bash)"; for zsh and fish, source it from their configuration.
"""

from __future__ import annotations

import argparse

import shtab

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim completion``."""
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")


def run(arguments: argparse.Namespace) -> int:
    """Print the script of that shell."""
    from edgesim.cli import build_parser

    print(shtab.complete(build_parser(), arguments.shell))
    return 0
