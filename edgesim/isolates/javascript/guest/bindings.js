// The bindings on env, one class for each kind.

import { AnalyticsEngine } from "./analytics.js";
import { current } from "./invocation.js";
import { KvNamespace } from "./kv.js";
import { R2Bucket } from "./r2.js";
import {
  Error, OBJECT, Symbol, TypeError, list, listOf, parseJson, stringify, toLowerCase,
} from "./safe.js";

class Queue {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async send(body, options = {}) {
    if (body === undefined) throw new TypeError("Message body cannot be undefined");
    const message = forQueue({ __proto__: null, ...options, body });
    const { contentType, delaySeconds } = options ?? {};
    const sent = { __proto__: null, contentType, delaySeconds };
    return await current().call(this.#name, "send", listOf(message.body), sent);
  }

  async sendBatch(messages, options = {}) {
    const all = list();
    for (const each of messages) all[all.length] = forQueue(each);
    return await current().call(this.#name, "sendBatch", listOf(all), options);
  }

  async metrics() {
    return await current().call(this.#name, "metrics");
  }
}

/** A message whose body crosses as what its content type makes of it. */
function forQueue(message) {
  if (message?.body === undefined) return message;
  if (toLowerCase(message.contentType ?? "json") !== "json") return message;
  const json = stringify(message.body);
  if (json === undefined) throw new TypeError("Message body cannot be serialized to JSON");
  return { __proto__: null, ...message, body: parseJson(json) };
}

class Pipeline {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async send(records) {
    await current().call(this.#name, "send", listOf(records));
  }
}

const FETCHER = {
  __proto__: null,
  get({ name }, method) {
    if (method === Symbol.toStringTag) return "Fetcher";
    if (typeof method !== "string" || method === "then") return undefined;
    if (method === "fetch") return async (input, init) => await current().fetch(name, input, init);
    if (method === "connect") return refuseSockets;
    // What every object has comes first, as in workerd.
    if (method !== "constructor" && method in OBJECT) return OBJECT[method];
    return async (...args) => await current().call(name, method, args);
  },
};

function refuseSockets() {
  throw new Error("connect() on a service binding is not in edgesim.");
}

const KINDS = {
  r2: (name) => new R2Bucket(name),
  kv: (name) => new KvNamespace(name),
  queue: (name) => new Queue(name),
  analytics: (name) => new AnalyticsEngine(name),
  pipeline: (name) => new Pipeline(name),
  service: (name) => new Proxy({ name }, FETCHER),
};

/** Puts the bindings on env; `specs` is a list of [name, kind]. */
export function bind(env, specs) {
  for (const [name, kind] of specs) env[name] = KINDS[kind](name);
}
