"""The SQL process: ``python -m edgesim.pipelines.sql.process FD ROWS RESULTS MEMORY_BYTES``.

It serves a socket until it closes, reads files in the folder ROWS and writes into RESULTS.  It is
confined before DataFusion and pyarrow are imported, since these start threads.
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
    confine(readable=sys.argv[2], writable=sys.argv[3])
    from edgesim.pipelines.sql.serving import serve

    with channel, channel.makefile("rb") as stream:
        serve(stream, channel.sendall, ProcessLimits(int(sys.argv[4])))


if __name__ == "__main__":
    main()
