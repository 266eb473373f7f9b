// The KV binding of worker code.

import { current } from "./invocation.js";

const { parse: parseJson, stringify } = JSON; // a Worker may replace them

export class KvNamespace {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async get(...args) {
    const options = reading(args[1]);
    if (Array.isArray(args[0])) return this.#getMany(args[0], options, (value) => value);
    const found = await this.#find(args, "get", options);
    return found === null ? null : read(found.body, options.type);
  }

  async getWithMetadata(...args) {
    const options = reading(args[1]);
    if (Array.isArray(args[0])) {
      return this.#getMany(args[0], options, (value, metadata) => ({ value, metadata }));
    }
    const found = await this.#find(args, "getWithMetadata", options);
    if (found === null) return { value: null, metadata: null, cacheStatus: null };
    const value = await read(found.body, options.type);
    return { value, metadata: parsed(found.value.metadata), cacheStatus: null };
  }

  async #find(args, method, options) {
    if (args.length < 1) throw wrongArgument(method, 1, "string or Array");
    const call = [this.#name, "get", [String(args[0])], { cacheTtl: options.cacheTtl }];
    const { value, body } = await current().callWithBody(...call, null);
    return value === null ? null : { value, body };
  }

  async #getMany(keys, options, shown) {
    const call = [this.#name, "getBulk", [keys.map(String)], options];
    const { body } = await current().callWithBody(...call, null);
    const rows = await new Response(body).json();
    const found = new Map();
    for (const [key, text, metadata] of rows) {
      const value = text !== null && options.type === "json" ? parseJson(text) : text;
      found.set(key, value === null ? null : shown(value, parsed(metadata)));
    }
    return found;
  }

  async put(...args) {
    if (args.length < 2) throw wrongArgument("put", 2, "string or Object");
    const [key, value, options] = args;
    const { expiration, expirationTtl, metadata } = options ?? {};
    const json = stringify(metadata);
    const sent = { expiration, expirationTtl, metadata: json === undefined ? null : parseJson(json) };
    const call = [this.#name, "put", [String(key)], sent];
    await current().callWithBody(...call, content(value));
  }

  async delete(...args) {
    if (args.length < 1) throw wrongArgument("delete", 1, "string");
    await current().call(this.#name, "delete", [String(args[0])]);
  }

  async list(options) {
    const { prefix, limit, cursor } = options ?? {};
    const found = await current().call(this.#name, "list", [], { prefix, limit, cursor });
    for (const key of found.keys) {
      if (key.metadata !== undefined) key.metadata = parseJson(key.metadata);
    }
    return { ...found, cacheStatus: null };
  }
}

/** The options of a read: a type, or an object with it. */
function reading(options) {
  return typeof options === "string" ? { type: options } : { ...options };
}

async function read(body, type = "text") {
  const response = new Response(body ?? new Uint8Array());
  switch (type) {
    case "text":
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await response.arrayBuffer());
    case "json":
      return response.json();
    case "arrayBuffer":
      return response.arrayBuffer();
    case "stream":
      return response.body;
  }
  throw new TypeError(
    'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".',
  );
}

/** The bytes of a value to store, as the body of a request. */
function content(value) {
  if (value instanceof ReadableStream || value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    return value;
  }
  if (value === null || typeof value !== "object") return String(value);
  throw new TypeError(
    "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values.",
  );
}

function parsed(metadata) {
  return metadata === null ? null : parseJson(metadata);
}

function wrongArgument(method, number, kind) {
  return new TypeError(
    `Failed to execute '${method}' on 'KvNamespace': parameter ${number} is not of type '${kind}'.`,
  );
}
