// Messages that worker code publishes on node:diagnostics_channel, for its trace.

import { currentOrNull } from "./invocation.js";

try {
  const { Channel } = await import("node:diagnostics_channel");
  const { publish } = Channel.prototype;
  Channel.prototype.publish = function (message) {
    const invocation = currentOrNull();
    if (invocation === null) return publish.call(this, message);
    // Only a subscriber is told the channel's name.
    const record = (_, name) => invocation.diagnose(name, message);
    this.subscribe(record);
    try {
      return publish.call(this, message);
    } finally {
      this.unsubscribe(record);
    }
  };
} catch {
  // Without a flag of Node's the module is not there.
}
