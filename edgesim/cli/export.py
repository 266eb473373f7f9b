"""edgesim export: write a folder that deploys the project to Cloudflare.

The folder has the Workers, a set-up script for buckets, queues and pipelines, and notes on what
could not be expressed. It contains no secret.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgesim.cli.arguments import PROJECT_HELP, add_files, find_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim export``."""
    parser.add_argument("target", choices=("cloudflare",), help="target platform")
    parser.add_argument("project", nargs="?", help=PROJECT_HELP)
    add_files(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("cloudflare"),
        metavar="DIR",
        help="folder to write (default: cloudflare)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files and print the folder."""
    from edgesim.export import export_cloudflare

    written = export_cloudflare(find_project(arguments), arguments.out)
    print(f"{len(written)} files in {arguments.out}; read NOTES.md, then run setup.sh there")
    return 0
