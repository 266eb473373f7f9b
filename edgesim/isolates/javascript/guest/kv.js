// The KV binding of worker code.

import { current } from "./invocation.js";
import {
  ArrayBuffer, ReadableStream, Response, String, TypeError, Uint8Array, bodyOfResponse,
  bytesOfResponse, calling, isA, isArray, isView, jsonOfResponse, listOf, mapped, parseJson, setPrototypeOf,
  stringify,
} from "./safe.js";

const { Map, TextDecoder } = globalThis;
const setIn = calling(Map.prototype.set);
const decode = calling(TextDecoder.prototype.decode);
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

export class KvNamespace {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async get(...args) {
    setPrototypeOf(args, null); // arguments that are not given are read too
    const options = reading(args[1]);
    if (isArray(args[0])) return await this.#getMany(args[0], options, (value) => value);
    const found = await this.#find(args, "get", options);
    return found === null ? null : await read(found.body, options.type);
  }

  async getWithMetadata(...args) {
    setPrototypeOf(args, null);
    const options = reading(args[1]);
    if (isArray(args[0])) {
      return await this.#getMany(args[0], options, (value, metadata) => ({ value, metadata }));
    }
    const found = await this.#find(args, "getWithMetadata", options);
    if (found === null) return { value: null, metadata: null, cacheStatus: null };
    const value = await read(found.body, options.type);
    return { value, metadata: parsed(found.value.metadata), cacheStatus: null };
  }

  async #find(args, method, options) {
    if (args.length < 1) throw wrongArgument(method, 1, "string or Array");
    const key = listOf(String(args[0]));
    const sent = { __proto__: null, cacheTtl: options.cacheTtl };
    const { value, body } = await current().callWithBody(this.#name, "get", key, sent, null);
    return value === null ? null : { __proto__: null, value, body };
  }

  async #getMany(keys, options, shown) {
    const named = listOf(mapped(keys, String));
    const { body } = await current().callWithBody(this.#name, "getBulk", named, options, null);
    const rows = await jsonOfResponse(new Response(body));
    const found = new Map();
    for (let at = 0; at < rows.length; at++) {
      const { 0: key, 1: text, 2: metadata } = rows[at];
      const value = text !== null && options.type === "json" ? parseJson(text) : text;
      setIn(found, key, value === null ? null : shown(value, parsed(metadata)));
    }
    return found;
  }

  async put(...args) {
    setPrototypeOf(args, null);
    if (args.length < 2) throw wrongArgument("put", 2, "string or Object");
    const { 0: key, 1: value, 2: options } = args;
    const { expiration, expirationTtl, metadata } = options ?? {};
    const json = stringify(metadata);
    const sent = {
      __proto__: null,
      expiration,
      expirationTtl,
      metadata: json === undefined ? null : parseJson(json),
    };
    await current().callWithBody(this.#name, "put", listOf(String(key)), sent, content(value));
  }

  async delete(...args) {
    setPrototypeOf(args, null);
    if (args.length < 1) throw wrongArgument("delete", 1, "string");
    await current().call(this.#name, "delete", listOf(String(args[0])));
  }

  async list(options) {
    const { prefix, limit, cursor } = options ?? {};
    const sent = { __proto__: null, prefix, limit, cursor };
    const found = await current().call(this.#name, "list", listOf(), sent);
    for (let at = 0; at < found.keys.length; at++) {
      const key = found.keys[at];
      if (key.metadata !== undefined) key.metadata = parseJson(key.metadata);
    }
    return { ...found, cacheStatus: null };
  }
}

/** The options of a read: a type, or an object with it. */
function reading(options) {
  return typeof options === "string" ? { __proto__: null, type: options } : { __proto__: null, ...options };
}

async function read(body, type = "text") {
  const response = new Response(body ?? new Uint8Array());
  switch (type) {
    case "text":
      return decode(UTF8, await bytesOfResponse(response));
    case "json":
      return await jsonOfResponse(response);
    case "arrayBuffer":
      return await bytesOfResponse(response);
    case "stream":
      return bodyOfResponse(response);
  }
  throw new TypeError(
    'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".',
  );
}

/** The bytes of a value to store, as the body of a request. */
function content(value) {
  if (isA(ReadableStream, value) || isA(ArrayBuffer, value) || isView(value)) return value;
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
