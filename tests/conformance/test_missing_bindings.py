"""A name on ``env`` that is not configured: the exception, and the fix that the log names."""

from pathlib import Path

import pytest

from edgesim.runtime.cures import cure_for
from tests.conformance.test_isolates import LEVELS, Level

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, tmp_path: Path) -> Level:
    return Level(request.param, tmp_path)


@pytest.mark.parametrize(
    ("used", "named"),
    [
        (
            "self.env.JOBS.send({'a': 1})",
            'binding JOBS in the wrangler file under "queues.producers"',
        ),
        ("env.JOBS.sendBatch([])", '"queues.producers"'),
        ("self.env.LAKE.createMultipartUpload('k')", '"r2_buckets"'),
        (
            "self.env.OTHER.fetch('http://x/')",
            'binding OTHER in the wrangler file under "services"',
        ),
        ("self.env.OTHER.charge(5)", "declare the binding OTHER in the wrangler file"),
        ("print(self.env.API_HOST)", "API_HOST=... to .dev.vars"),
    ],
)
async def test_exception_and_fix(level, used, named):
    """The AttributeError names the variable, the fix the key that would declare it."""
    done, _ = await level.fetch(
        f"""
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                await {used}
        """
    )
    (failure,) = done.exceptions
    *_, last = failure.message.splitlines()
    assert last.startswith("AttributeError: env.")
    assert "the wrangler file declares no such binding or variable" in last
    cure = cure_for(failure.message, Path("/project/entry.py"))
    assert cure is not None
    assert named in cure
    assert "\n" not in cure


async def test_absence_can_be_asked_for(level):
    """A default of ``getattr``, ``hasattr`` and a caught AttributeError work as on Cloudflare."""
    done, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                try:
                    self.env.ABSENT
                except AttributeError:
                    found = [getattr(self.env, "ABSENT", 1), hasattr(env, "ABSENT")]
                return Response(json.dumps(found))
        """
    )
    assert done.exceptions == []
    assert host.responses[0].body == b"[1, false]"
