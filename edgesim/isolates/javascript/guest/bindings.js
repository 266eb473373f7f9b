// The bindings on env, one class for each kind.

import { current } from "./invocation.js";
import { R2Bucket } from "./r2.js";

class Queue {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async send(body, options = {}) {
    if (body === undefined) throw new TypeError("Message body cannot be undefined");
    const message = forQueue({ ...options, body });
    const sent = { contentType: options?.contentType, delaySeconds: options?.delaySeconds };
    return current().call(this.#name, "send", [message.body], sent);
  }

  async sendBatch(messages, options = {}) {
    return current().call(this.#name, "sendBatch", [Array.from(messages, forQueue)], options);
  }

  async metrics() {
    return current().call(this.#name, "metrics");
  }
}

/** A message whose body crosses as what its content type makes of it. */
function forQueue(message) {
  if (message?.body === undefined) return message;
  if ((message.contentType ?? "json").toLowerCase() !== "json") return message;
  const json = JSON.stringify(message.body);
  if (json === undefined) throw new TypeError("Message body cannot be serialized to JSON");
  return { ...message, body: JSON.parse(json) };
}

class Pipeline {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async send(records) {
    await current().call(this.#name, "send", [records]);
  }
}

const FETCHER = {
  get({ name }, method) {
    if (typeof method !== "string" || method === "then") return undefined;
    if (method === "fetch") return (input, init) => current().fetch(name, input, init);
    if (method === "connect") return refuseSockets;
    if (method === "scheduled") return (options = {}) => current().call(name, method, [], options);
    return async (...args) => current().call(name, method, args);
  },
};

function refuseSockets() {
  throw new Error("connect() on a service binding is not in edgesim.");
}

const KINDS = {
  r2: (name) => new R2Bucket(name),
  queue: (name) => new Queue(name),
  pipeline: (name) => new Pipeline(name),
  service: (name) => new Proxy({ name }, FETCHER),
};

/** Puts the bindings on env; `specs` is a list of [name, kind]. */
export function bind(env, specs) {
  for (const [name, kind] of specs) env[name] = KINDS[kind](name);
}
