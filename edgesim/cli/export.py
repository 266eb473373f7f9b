"""edgesim export: write the project as Cloudflare deploys it."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgesim.cli.arguments import add_files, find_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim export``."""
    parser.add_argument("target", choices=("cloudflare",), help="for whom")
    parser.add_argument(
        "project", nargs="?", help="folder of edgesim.toml (default: . or ./workers)"
    )
    add_files(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("cloudflare"), metavar="DIR", help="(default: cloudflare)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files and print the folder."""
    from edgesim.export import export_cloudflare

    written = export_cloudflare(find_project(arguments), arguments.out)
    print(f"{len(written)} files in {arguments.out}; read NOTES.md, then run setup.sh there")
    return 0
