"""The Iceberg process: ``python -m edgesim.pipelines.iceberg.process FD MEMORY_BYTES CPU_SECONDS``.

It serves a socket until it closes.  It is confined before pyiceberg and pyarrow are imported, since
these start threads.  It opens no file and no connection: the platform reads and writes the bucket.
"""

from __future__ import annotations

import socket
import sys

from edgesim.jail.lifeline import end_with_edgesim
from edgesim.pipelines.confinement import confine
from edgesim.pipelines.process_limits import ProcessLimits


def main() -> None:
    """Confine the process, then serve requests."""
    end_with_edgesim()
    channel = socket.socket(fileno=int(sys.argv[1]))
    confine()
    from edgesim.pipelines.iceberg.serving import serve

    with channel, channel.makefile("rb") as stream:
        serve(stream, channel.sendall, ProcessLimits(int(sys.argv[2])), float(sys.argv[3]))


if __name__ == "__main__":
    main()
