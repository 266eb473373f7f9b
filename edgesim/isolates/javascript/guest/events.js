// The arguments of queue, tail and scheduled handlers.

import { Date, define, list, mapped } from "./safe.js";

class Message {
  #id;
  #decide;

  constructor({ id, timestamp, attempts, body }, decide) {
    this.#id = id;
    this.#decide = decide;
    define(this, "id", id);
    define(this, "timestamp", new Date(timestamp));
    define(this, "attempts", attempts);
    define(this, "body", body);
  }

  ack() {
    this.#decide(this.#id, "ack", null);
  }

  retry(options = {}) {
    this.#decide(this.#id, "retry", options?.delaySeconds ?? null);
  }
}

export class MessageBatch {
  #decisions = { __proto__: null, messages: { __proto__: null }, all: null, delaySeconds: null };

  constructor({ queue, messages, metadata }) {
    const decide = (id, decision, delaySeconds) => {
      if (this.#decisions.messages[id] !== undefined) return;
      const decided = list();
      decided[0] = decision;
      decided[1] = delaySeconds;
      this.#decisions.messages[id] = decided;
    };
    define(this, "queue", queue);
    define(this, "messages", mapped(messages, (each) => new Message(each, decide)));
    define(this, "metadata", metadata);
  }

  ackAll() {
    this.#decisions.all ??= "ack";
  }

  retryAll(options = {}) {
    if (this.#decisions.all !== null) return;
    this.#decisions.all = "retry";
    this.#decisions.delaySeconds = options?.delaySeconds ?? null;
  }

  static decisionsOf(batch) {
    return batch.#decisions;
  }
}

export class ScheduledController {
  #noRetry = false;

  constructor({ cron, scheduledTime }) {
    define(this, "cron", cron);
    define(this, "scheduledTime", scheduledTime);
  }

  noRetry() {
    this.#noRetry = true;
  }

  static isFinal(controller) {
    return controller.#noRetry;
  }
}

export const { decisionsOf } = MessageBatch; // a Worker has the class, by its events
export const { isFinal } = ScheduledController;

/** Traces as a tail handler receives them: the request's original is behind getUnredacted(). */
export function traceItems(items) {
  for (let at = 0; at < items.length; at++) {
    const request = items[at].event?.request;
    if (!request) continue;
    const { unredacted = request } = request;
    delete request.unredacted;
    define(request, "getUnredacted", () => unredacted, false);
  }
  return items;
}
