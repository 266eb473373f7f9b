// Arguments of queue, tail and scheduled handlers.  They are class instances, as in workerd: the SDK
// leaves those raw, but turns plain objects into dicts.

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

// The first decision on a message or its batch counts; an opposite one after it only warns.
class Message {
  #decisions;
  constructor(data, decisions) {
    this.#decisions = decisions;
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
    const { messages, all } = this.#decisions;
    const made = messages[this.id];
    if (!made && !all) messages[this.id] = [decision, delay];
    else if ((all ?? made[0]) !== decision) {
      const earlier = all ? `${all}All` : made[0];
      console.warn(
        `Received a call to ${decision}() on message ${this.id} after ${earlier}() was already ` +
          `called. Calling ${decision}() on a message after calling ${earlier}() has no effect.`,
      );
    }
  }
}

class MessageBatch {
  #decisions = { messages: {}, all: null, delaySeconds: null };
  constructor({ queue, messages }) {
    this.queue = queue;
    this.messages = messages.map((each) => new Message(each, this.#decisions));
    this.metadata = {};
  }
  ackAll() {
    this.#decide("ack", null);
  }
  retryAll(options) {
    this.#decide("retry", delayOf(options));
  }
  #decide(decision, delaySeconds) {
    const { all } = this.#decisions;
    if (!all) Object.assign(this.#decisions, { all: decision, delaySeconds });
    else if (all !== decision)
      console.warn(
        `Received a call to ${decision}All() after ${all}All() was already called. ` +
          `Calling ${decision}All() after calling ${all}All() has no effect.`,
      );
  }
  decisions() {
    return this.#decisions;
  }
}

export const batchOf = (data) => new MessageBatch(data);
