// What queue, tail and scheduled handlers are given.  Instances of classes, as in workerd: the SDK
// leaves those raw where it would turn plain objects into dicts.

export class TraceItem {}
class TraceLog {}
class TraceException {}

export function traceItem(data) {
  return Object.assign(new TraceItem(), data, {
    logs: data.logs.map((log) => Object.assign(new TraceLog(), log)),
    exceptions: data.exceptions.map((each) => Object.assign(new TraceException(), each)),
  });
}

export class ScheduledController {
  constructor({ cron, scheduledTime }) {
    Object.assign(this, { cron, scheduledTime });
  }
  noRetry() {}
}

function bodyOf({ body, contentType }) {
  if (contentType === "bytes") return new Uint8Array(Buffer.from(body, "base64"));
  if (contentType === "date") return new Date(body);
  return body;
}

function delayOf(options) {
  if (options === undefined) return null;
  if (options === null || typeof options !== "object")
    throw new TypeError("Incorrect type for the 'options' field: not of type 'QueueRetryOptions'.");
  const delay = options.delaySeconds ?? null;
  if (delay !== null && (delay < 0 || delay > 86_400))
    throw new TypeError(`delaySeconds must be between 0 and 86400, not ${delay}`);
  return delay;
}

class Message {
  #decision = null;
  constructor(data) {
    Object.assign(this, {
      id: data.id,
      attempts: data.attempts,
      timestamp: new Date(data.timestamp),
      body: bodyOf(data),
    });
  }
  ack() {
    this.#decide("ack", null);
  }
  retry(options) {
    this.#decide("retry", delayOf(options));
  }
  #decide(decision, delay) {
    if (this.#decision === null) this.#decision = [decision, delay];
    else if (this.#decision[0] !== decision)
      console.warn(
        `Received a call to ${decision}() on message ${this.id} after ${this.#decision[0]}() was ` +
          "already called. Calling one after the other has no effect.",
      );
  }
  decision() {
    return this.#decision;
  }
}

class MessageBatch {
  #all = null;
  #delay = null;
  constructor({ queue, messages }) {
    this.queue = queue;
    this.messages = messages.map((each) => new Message(each));
    this.metadata = {};
  }
  ackAll() {
    this.#all ??= "ack";
  }
  retryAll(options) {
    const delay = delayOf(options);
    if (this.#all === null) [this.#all, this.#delay] = ["retry", delay];
  }
  decisions() {
    return {
      messages: Object.fromEntries(
        this.messages.filter((each) => each.decision()).map((each) => [each.id, each.decision()]),
      ),
      all: this.#all,
      delaySeconds: this.#delay,
    };
  }
}

export const batchOf = (data) => new MessageBatch(data);
