"""The Tail Worker: PIPE_ME lines to the events Pipeline, PIPE_ERR lines to the errors Pipeline.

One parse a line, order kept, one send for each pipeline and call unless it would be too large.  A
receiver that threw, was killed or logged too much is a record of the errors stream.  A trace is
delivered once, so a send that fails costs its own records and no others: every send is tried.
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
        failures = [
            *await _send(self.env.PIPELINE, records),
            *await _send(self.env.ERROR_PIPELINE, errors),
        ]
        if failures:  # the platform is to know that this call has lost something
            raise failures[0]


async def _send(pipeline, records):
    """Send all of it; the exceptions of the sends that failed."""
    failures = []
    for chunk in split(records):
        try:
            await call(pipeline, "send", chunk)
        except Exception as error:
            print(f"{len(chunk)} records lost: {error}")
            failures.append(error)
    return failures
