// Messages that worker code publishes on node:diagnostics_channel, for its trace.

import { currentOrNull } from "./invocation.js";
import { apply, listOf } from "./safe.js";

try {
  const { Channel } = await import("node:diagnostics_channel");
  const { publish, subscribe, unsubscribe } = Channel.prototype;
  Channel.prototype.publish = function (message) {
    const invocation = currentOrNull();
    if (invocation === null) return apply(publish, this, listOf(message));
    // Only a subscriber is told the channel's name.
    const record = (_, name) => invocation.diagnose(name, message);
    apply(subscribe, this, listOf(record));
    try {
      return apply(publish, this, listOf(message));
    } finally {
      apply(unsubscribe, this, listOf(record));
    }
  };
} catch {
  // Without a flag of Node's the module is not there.
}
