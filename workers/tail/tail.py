"""The Tail Worker: PIPE_ME lines to the events Pipeline, PIPE_ERR lines to the errors Pipeline.

One parse a line, order kept, one send for each pipeline and call unless it would be too large.  A
receiver that threw, was killed or logged too much is a record of the errors stream.
"""

from rpc import call
from traces import read_trace, split

from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Takes traces, sends records."""

    async def tail(self, events, env=None, ctx=None):
        records, errors = [], []
        for trace in events:
            found, wrong = read_trace(trace)
            records += found
            errors += wrong
        try:
            await _send(self.env.PIPELINE, records)
        finally:  # a Pipeline that refuses costs its own records, not the other's
            await _send(self.env.ERROR_PIPELINE, errors)


async def _send(pipeline, records):
    for chunk in split(records):
        await call(pipeline, "send", chunk)
