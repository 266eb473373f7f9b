"""The Tail Worker: PIPE_ME lines to the events Pipeline, PIPE_ERR lines to the errors Pipeline.

Each line is parsed once, the order is kept, and each call makes one send per pipeline, or more if
it would be too large.  An invocation that threw, was killed or logged too much adds a record to the
errors stream.  A trace is delivered once, so a failed send must lose no records but its own: the
other sends are still made.
"""

from rpc import call
from traces import read_trace, split

from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Receives traces and sends their records to the Pipelines."""

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
        if failures:  # report the loss to the platform: the call has failed
            raise failures[0]


async def _send(pipeline, records):
    """Send all records; return the exceptions of the sends that failed."""
    failures = []
    for chunk in split(records):
        try:
            await call(pipeline, "send", chunk)
        except Exception as error:
            print(f"{len(chunk)} records lost: {error}")
            failures.append(error)
    return failures
