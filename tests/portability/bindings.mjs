// Fakes of the bindings, driven by a scenario's data; every call is recorded in a form that both
// sides can produce (see canonical).

import { createHash } from "node:crypto";

// Node requires `duplex: "half"` for a streamed body, workerd does not; and Node lacks `cf`.
const NodeRequest = globalThis.Request;
const cfOf = new WeakMap();
globalThis.Request = class Request extends NodeRequest {
  constructor(input, init) {
    const options = init?.body === undefined ? init : { ...init, duplex: "half" };
    super(input, options);
    const cf = init?.cf ?? cfOf.get(input);
    if (cf) cfOf.set(this, cf);
  }
  get cf() {
    return cfOf.get(this);
  }
  clone() {
    return new Request(super.clone(), { cf: this.cf });
  }
};

// Node takes an undefined filename as a name; workerd and the standard take it as absent.
const nodeAppend = FormData.prototype.append;
FormData.prototype.append = function append(...args) {
  return nodeAppend.apply(this, args[2] === undefined ? args.slice(0, 2) : args);
};

export function requestOf({ method, url, headers, body, cf }) {
  const init = { method, headers, cf };
  if (body !== null) init.body = Buffer.from(body, "base64");
  return new Request(url, init);
}

export async function responseOf(response) {
  return {
    status: response.status,
    headers: [...response.headers],
    body: Buffer.from(await response.arrayBuffer()).toString("base64"),
  };
}

// Returns the value as JSON, with a `$` key for types that JSON lacks.
export async function canonical(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "bigint") return { $int: String(value) };
  if (typeof value !== "object") return value;
  if (value instanceof Date) return { $date: value.getTime() };
  if (value instanceof ArrayBuffer) return bytes(new Uint8Array(value));
  if (ArrayBuffer.isView(value)) return bytes(value);
  if (value instanceof ReadableStream) return bytes(await new Response(value).bytes?.() ?? new Uint8Array(await new Response(value).arrayBuffer()));
  if (value instanceof Response) return { $response: await responseOf(value) };
  if (Array.isArray(value)) return Promise.all(value.map(canonical));
  if (Object.getPrototypeOf(value) !== Object.prototype && Object.getPrototypeOf(value) !== null)
    return { $object: value.constructor.name };
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(
    await Promise.all(entries.map(async ([key, item]) => [key, await canonical(item)])),
  );
}

const bytes = (view) => ({
  $bytes: Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString("base64"),
});

// JSON.stringify decides how `queue.send` encodes a Buffer, a Date or a class instance.
function jsonBody(value) {
  if (typeof value === "function" || value === undefined)
    throw new TypeError("The value cannot be serialized");
  return JSON.parse(JSON.stringify(value));
}

function refuseProxies(value) {
  if (value !== null && typeof value === "object" && value.constructor?.name?.startsWith("PyProxy"))
    throw new DOMException("Could not serialize object of type PyProxy.", "DataCloneError");
}

class WorkerQueue {
  #spec;
  #record;
  constructor(spec, record) {
    this.#spec = spec;
    this.#record = record;
  }
  async send(body, options) {
    refuseProxies(body);
    this.#record("send", [encoded(body, options), ...rest(options)]);
    return this.#answer();
  }
  async sendBatch(messages, options) {
    refuseProxies(messages);
    const list = [...messages].map((each) => ({ ...each, body: encoded(each.body, each) }));
    this.#record("sendBatch", [list, ...rest(options)]);
    return this.#answer();
  }
  async metrics() {
    this.#record("metrics", []);
    return { backlogCount: 3, backlogBytes: 30 };
  }
  #answer() {
    if (this.#spec.error) throw new Error(this.#spec.error);
    return { metadata: { metrics: { backlogCount: 3, backlogBytes: 30 } } };
  }
}

function encoded(body, options) {
  switch (options?.contentType ?? "json") {
    case "text":
      if (typeof body !== "string") throw wrongType("text", "string", body);
      return body;
    case "bytes":
      if (!ArrayBuffer.isView(body)) throw wrongType("bytes", "ArrayBufferView", body);
      return body;
    case "json":
      return jsonBody(body);
    case "v8":
      return body;
    default:
      throw new TypeError(`Unsupported queue message content type: ${options.contentType}`);
  }
}

const wrongType = (kind, wanted, body) =>
  new TypeError(
    `Content Type "${kind}" requires a value of type ${wanted}, but received: ${typeof body}`,
  );

const rest = (options) => (options === undefined ? [] : [options]);

class R2Object {
  constructor(stored) {
    const { body, ...shown } = stored;
    Object.assign(this, shown);
  }
}

class R2ObjectBody extends R2Object {
  #response;
  constructor(stored) {
    super(stored);
    this.#response = new Response(stored.body);
  }
  get body() {
    return this.#response.body;
  }
  get bodyUsed() {
    return this.#response.bodyUsed;
  }
  arrayBuffer() {
    return this.#response.arrayBuffer();
  }
  text() {
    return this.#response.text();
  }
  json() {
    return this.#response.json();
  }
  blob() {
    return this.#response.blob();
  }
}

class R2Bucket {
  #spec;
  #record;
  #objects = new Map();
  constructor(spec, record) {
    this.#spec = spec;
    this.#record = record;
    for (const [key, each] of Object.entries(spec.objects ?? {}))
      this.#keep(key, Buffer.from(each.body, "base64"), each);
  }
  #keep(key, body, { customMetadata, httpMetadata } = {}) {
    const etag = createHash("md5").update(body).digest("hex");
    const stored = {
      key,
      size: body.length,
      etag,
      httpEtag: `"${etag}"`,
      uploaded: new Date(Date.now()),
      customMetadata: customMetadata ?? {},
      httpMetadata: httpMetadata ?? {},
      body,
    };
    this.#objects.set(key, stored);
    return stored;
  }
  #called(method, args) {
    this.#record(method, args);
    if (this.#spec.error) throw new Error(this.#spec.error);
  }
  async head(key) {
    this.#called("head", [key]);
    const found = this.#objects.get(key);
    return found ? new R2Object(found) : null;
  }
  async get(key, options) {
    this.#called("get", [key, ...rest(options)]);
    const found = this.#objects.get(key);
    if (!found) return null;
    const wanted = options?.onlyIf?.etagMatches;
    if (wanted && wanted !== found.etag) return new R2Object(found);
    const { offset = 0, length = found.size } = options?.range ?? {};
    return new R2ObjectBody({ ...found, body: found.body.subarray(offset, offset + length) });
  }
  async put(key, value, options) {
    refuseProxies(value);
    const body = Buffer.from(await new Response(value).arrayBuffer());
    this.#called("put", [key, new Uint8Array(body), ...rest(options)]);
    return new R2Object(this.#keep(key, body, options));
  }
  async delete(keys) {
    this.#called("delete", [keys]);
    for (const key of [keys].flat()) this.#objects.delete(key);
  }
  async list(options) {
    this.#called("list", rest(options));
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(options?.prefix ?? ""));
    const shown = keys.sort().slice(0, options?.limit ?? 1000);
    return {
      objects: shown.map((key) => new R2Object(this.#objects.get(key))),
      truncated: shown.length < keys.length,
      delimitedPrefixes: [],
    };
  }
}

// A stub has a method of every name, and its result can be awaited: hence Pyodide takes a pipeline
// binding for an iterator, whose `send` hides the RPC method.
class Fetcher {}

function stub(spec, record, name) {
  const methods = {
    constructor: Fetcher,
    fetch: (input, init) => answerFetch(spec, record, input, init),
  };
  return new Proxy(Object.create(Fetcher.prototype), {
    get(target, property) {
      if (typeof property === "symbol") return undefined;
      if (property === "then") return undefined;
      return methods[property] ?? remoteMethod(spec, record, property);
    },
    has: (target, property) => typeof property === "string",
  });
}

function remoteMethod(spec, record, method) {
  const call = async (...args) => {
    args.forEach(refuseProxies);
    record(method, args);
    if (spec.error) throw new Error(spec.error);
    const answer = spec.rpc?.[method];
    if (answer === undefined && spec.kind !== "pipeline")
      throw new TypeError(`The RPC receiver does not implement the method "${method}".`);
    if (answer?.error) throw new Error(answer.error);
    return answer?.value;
  };
  call.then = (resolve, reject) => reject(new Error(`${method} is awaited, not called`));
  return call;
}

async function sent(input, init) {
  const given = input instanceof Request ? input : null;
  const body = given && (init?.body == null || init.body.locked || given.bodyUsed === false && given.body) ? given.body : init?.body;
  const headers = new Headers(init?.headers ?? given?.headers);
  const outgoing = new Response(body ?? null);
  const kind = (given ?? outgoing).headers.get("content-type");
  if (kind && !headers.has("content-type")) headers.set("content-type", kind);
  return {
    method: init?.method?.toUpperCase() ?? given?.method ?? "GET",
    url: given?.url ?? new URL(String(input)).href,
    headers: [...headers],
    body: Buffer.from(await outgoing.arrayBuffer()).toString("base64"),
  };
}

async function answerFetch(spec, record, input, init) {
  const request = await sent(input, init);
  record("fetch", [request]);
  if (spec.error) throw new TypeError(spec.error);
  const { status = 200, headers = {}, body = "" } = spec.responses?.shift() ?? {};
  const nothing = [204, 205, 304].includes(status);
  const response = new Response(nothing ? null : Buffer.from(body, "base64"), { status, headers });
  Object.defineProperty(response, "url", { value: request.url });
  return response;
}

export function outboundFetch(current, input, init) {
  return answerFetch(
    structuredClone(current.outbound),
    (method, args) => current.calls.push(written("", method, args)),
    input,
    init,
  );
}

const written = async (binding, method, args) => ({
  binding,
  method,
  args: await Promise.all(args.map(canonical)),
});

const KINDS = {
  r2: (spec, record) => new R2Bucket(spec, record),
  queue: (spec, record) => new WorkerQueue(spec, record),
  pipeline: stub,
  service: stub,
};

export function makeEnv(scenario, calls) {
  const env = structuredClone(scenario.vars ?? {});
  for (const [name, given] of Object.entries(scenario.bindings ?? {})) {
    const spec = structuredClone(given);
    const record = (method, args) => calls.push(written(name, method, args));
    env[name] = KINDS[spec.kind](spec, record, name);
  }
  return env;
}
