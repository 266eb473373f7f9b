"""Decisions of JavaScript queue consumers, in virtual time."""

import pytest

from tests.javascript.test_virtual_time import LEVELS, virtual

SOURCE = """
const seconds = () => Math.round((Date.now() - START) / 1000);
const START = 1_800_000_000_000;

export default {
  async fetch(request, env) {
    const late = { body: "late", delaySeconds: 40 };
    await env.EACH.sendBatch([{ body: "again" }, { body: "fine" }, late]);
    await env.ALL.sendBatch([{ body: "kept" }, { body: "back" }]);
    await env.THROWS.sendBatch([{ body: "kept" }, { body: "back" }]);
    await env.ACKS.sendBatch([{ body: "one" }, { body: "two" }], { delaySeconds: 20 });
    await scheduler.wait(600_000);
    const { objects } = await env.B.list();
    return Response.json(objects.map((each) => each.key));
  },

  async queue(batch, env) {
    for (const { body, attempts } of batch.messages) {
      await env.B.put(`${batch.queue} ${body} ${attempts} at ${seconds()}`, "");
    }
    const first = batch.messages.every((each) => each.attempts === 1);
    const [message] = batch.messages;
    switch (batch.queue) {
      case "each":
        for (const each of batch.messages) {
          if (each.body === "again" && each.attempts < 3) each.retry({ delaySeconds: 60 });
          else each.ack();
        }
        break;
      case "all":
        if (!first) return;
        message.ack();
        batch.retryAll({ delaySeconds: 30 });
        batch.ackAll(); // too late: the first decision counts
        break;
      case "throws":
        if (!first) return;
        message.ack();
        throw new Error("no luck");
      case "acks":
        batch.ackAll();
        if (first) message.retry(); // its own decision counts
    }
  },
};
"""


@pytest.mark.parametrize("level", LEVELS)
def test_each_decision_has_its_effect(tmp_path, level):
    """Own decisions before those for the batch, first decisions before later ones, and delays."""
    names = ("each", "all", "throws", "acks")
    settings = {
        "r2_buckets": [{"binding": "B", "bucket_name": "seen"}],
        "queues": {
            "producers": [{"binding": name.upper(), "queue": name} for name in names],
            "consumers": [
                {"queue": name, "max_batch_size": 2, "max_batch_timeout": 0, "retry_delay": 10}
                for name in names
            ],
        },
    }
    ((seen,), _) = virtual(tmp_path, SOURCE, level, **settings)
    assert sorted(seen) == sorted(
        [
            *("each again 1 at 0", "each again 2 at 60", "each again 3 at 120"),
            *("each fine 1 at 0", "each late 1 at 40"),
            *("all kept 1 at 0", "all back 1 at 0", "all back 2 at 30"),
            *("throws kept 1 at 0", "throws back 1 at 0", "throws back 2 at 10"),
            *("acks one 1 at 20", "acks two 1 at 20", "acks one 2 at 30"),
        ]
    )
