// The arguments of queue, tail and scheduled handlers.

class Message {
  #decide;

  constructor({ id, timestamp, attempts, body }, decide) {
    this.id = id;
    this.timestamp = new Date(timestamp);
    this.attempts = attempts;
    this.body = body;
    this.#decide = decide;
  }

  ack() {
    this.#decide(this.id, "ack", null);
  }

  retry(options = {}) {
    this.#decide(this.id, "retry", options?.delaySeconds ?? null);
  }
}

export class MessageBatch {
  #decisions = { messages: {}, all: null, delaySeconds: null };

  constructor({ queue, messages, metadata }) {
    const decide = (id, ...decision) => {
      this.#decisions.messages[id] ??= decision;
    };
    this.queue = queue;
    this.messages = messages.map((each) => new Message(each, decide));
    this.metadata = metadata;
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
    this.cron = cron;
    this.scheduledTime = scheduledTime;
  }

  noRetry() {
    this.#noRetry = true;
  }

  static isFinal(controller) {
    return controller.#noRetry;
  }
}

/** Traces as a tail handler receives them: the request's original is behind getUnredacted(). */
export function traceItems(items) {
  for (const { event } of items) {
    const request = event?.request;
    if (!request) continue;
    const { unredacted = request } = request;
    delete request.unredacted;
    Object.defineProperty(request, "getUnredacted", { value: () => unredacted });
  }
  return items;
}
