// A Worker whose every path is an attack.  `honest` is an ordinary invocation.

import { WorkerEntrypoint, env as globalEnv } from "cloudflare:workers";
import loop from "./loop.wasm";

const kept = [];
const forever = new Promise(() => {});
const poison = (target, name, value) => Object.defineProperty(target, name, { value, configurable: true, writable: true });
const refuse = () => { throw new Error("poisoned"); };
const { apply, construct, ownKeys, getPrototypeOf: prototypeOf, getOwnPropertyDescriptor: describe, defineProperty: define } = Reflect;
const seen = Object.setPrototypeOf([], null);

/** Keeps values, without a method that may be replaced. */
function note(...values) {
  for (let at = 0; at < values.length; at++) seen[seen.length] = values[at];
}

/** Calls what `names` list on an object with a function that records its arguments first. */
function spy(target, ...names) {
  for (const name of names) {
    const native = target[name];
    target[name] = function (...args) {
      note(this, ...args);
      return apply(native, this, args);
    };
  }
}

function spyGetter(target, ...names) {
  for (const name of names) {
    let owner = target;
    while (describe(owner, name) === undefined) owner = prototypeOf(owner);
    const found = describe(owner, name);
    define(owner, name, { ...found, get() { note(this); return apply(found.get, this, []); } });
  }
}

const ATTACKS = {
  // --- CPU ---
  "busy-loop": () => { for (;;); },
  "busy-microtasks": async () => { for (;;) await null; },
  "busy-regex": () => /^(a+)+$/.test("a".repeat(40) + "b"),
  "busy-generator": () => { function* all() { for (;;) yield 1; } for (const each of all()) kept[0] = each; },
  "busy-sort": () => { for (;;) new Array(1e6).fill(0).map(Math.random).sort(); },
  "busy-json": () => { for (;;) JSON.parse("[".repeat(1e5) + "]".repeat(1e5)); },
  "busy-timers": async () => { for (;;) { const until = Date.now(); for (let i = 0; i < 1e7; i++); await scheduler.wait(0); } },
  "busy-after-response": (_, __, context) => { context.waitUntil(scheduler.wait(1).then(() => { for (;;); })); },
  "busy-wasm": () => new WebAssembly.Instance(loop),
  "busy-stack": () => { const f = () => f(); try { f(); } catch (e) { throw new Error(e.name); } },
  "busy-to-string": () => new Response({ toString() { for (;;); } }),
  "busy-header": () => new Response("x", { headers: { get x() { for (;;); } } }),
  "busy-stack-getter": () => { throw Object.defineProperty(new Error("x"), "stack", { get() { for (;;); } }); },
  "busy-prepare": () => { Error.prepareStackTrace = () => { for (;;); }; null.x; },
  // --- memory ---
  "memory-array": () => { for (;;) kept.push(new Array(10_000).fill(Math.random())); },
  "memory-buffers": async () => { for (;;) { kept.push(new Uint8Array(8 << 20).fill(1)); await scheduler.wait(1); } },
  "memory-buffers-sync": () => { for (;;) kept.push(new Uint8Array(8 << 20).fill(1)); },
  "memory-string": () => { let text = "x".repeat(1000); for (;;) { text += text; kept.push(text); } },
  "memory-flat-strings": () => { for (;;) kept.push(JSON.stringify(["x".repeat(10_000_000) + kept.length])); },
  "memory-wasm": () => { for (;;) { const memory = new WebAssembly.Memory({ initial: 256 }); new Uint8Array(memory.buffer).fill(1); kept.push(memory); } },
  "memory-promises": async () => { for (;;) kept.push(Promise.resolve().then(() => forever)); },
  "memory-map": () => { const map = new Map(); kept.push(map); for (let i = 0; ; i++) map.set(i, {}); },
  "memory-blobs": async () => { for (;;) { kept.push(new Blob([new Uint8Array(8 << 20).fill(1)])); await scheduler.wait(1); } },
  "memory-timers": async () => { for (;;) setTimeout(() => 1, 1e6); },
  "memory-tee": async () => {
    const chunk = new Uint8Array(1 << 20).fill(1);
    const [one] = new ReadableStream({ pull(c) { c.enqueue(chunk.slice()); } }).tee();
    for await (const each of one) kept[0] = each;
  },
  "memory-caught": () => { for (;;) { try { kept.push(new Uint8Array(64 << 20).fill(1)); } catch { kept.push(1); } } },
  "json-bomb": () => { const text = "[" + "[],".repeat(20_000_000) + "[]]"; return new Response(String(JSON.parse(text).length)); },
  // --- waits ---
  "never-answers": () => forever,
  "never-answers-with-a-timer": async () => { setInterval(() => 1, 1000); await forever; },
  "stream-that-hangs": () => new Response(new ReadableStream({ pull: () => forever })),
  "stream-that-hangs-later": () => new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array(10)); }, pull: () => forever })),
  "stream-that-fails": () => new Response(new ReadableStream({ pull(c) { c.error(new Error("failed")); } })),
  "endless-body": () => new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1 << 16)); } })),
  "wait-until-for-ever": (_, __, context) => context.waitUntil(forever),
  "wait-until-past-the-wrapper": (_, __, context) => Object.getPrototypeOf(context).waitUntil.call(context, forever),
  "wait-until-rejects": (_, __, context) => context.waitUntil(Promise.reject(new Error("late"))),
  "wait-until-chain": (_, __, context) => { const again = () => context.waitUntil(scheduler.wait(1).then(again)); again(); },
  "abort": (_, __, context) => context.abort?.("x"),
  // --- reach ---
  "eval": () => eval("1 + 1"),
  "new-function": () => new Function("return 1")(),
  "wasm-compile": () => WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])),
  "import-internal": async () => {
    for (const name of ["workerd:unsafe", "cloudflare-internal:env", "node-internal:process", "workerd:rtti", "cloudflare-internal:sockets", "edgesim/invocation.js", "edgesim/bindings.js", "../edgesim/invocation.js", "file:///etc/passwd", "/etc/passwd", "data:text/javascript,1"]) {
      let found; try { found = await import(name); } catch (error) { note(error.message); continue; }
      throw new Error(`imported ${name}: ${Object.keys(found)}`);
    }
  },
  "loopback": async () => { const { exports } = await import("cloudflare:workers"); return new Response(JSON.stringify(Object.keys(exports ?? {}))); },

  "node-fs": async () => {
    const fs = await import("node:fs");
    for (const path of ["/etc/passwd", "/proc/self/environ", "/proc/self/maps", "/root", "/bundle/../../etc/passwd"]) {
      let found; try { found = fs.readFileSync(path, "utf8"); } catch (error) { note(error.message); continue; }
      throw new Error(`read ${path}`);
    }
  },
  "node-fs-fill": async () => { const fs = await import("node:fs"); for (let i = 0; ; i++) fs.writeFileSync(`/tmp/${i}`, new Uint8Array(1 << 20).fill(1)); },
  "node-child-process": async () => { const { execSync } = await import("node:child_process"); execSync("id"); },
  "node-net": async (env) => {
    const net = await import("node:net");
    await new Promise((resolve, reject) => net.connect(Number(env.PORT), "127.0.0.1", resolve).on("error", reject));
  },
  "node-http": async (env) => {
    const http = await import("node:http");
    const status = await new Promise((resolve, reject) => http.get(env.ADMIN, (r) => resolve(r.statusCode)).on("error", reject));
    throw new Error(`status ${status}`);
  },
  "node-dns": async () => { const dns = await import("node:dns/promises"); await dns.lookup("localhost"); },
  "node-process": async () => { const process = (await import("node:process")).default; process.kill?.(1, 9); process.exit?.(0); },
  "node-worker-threads": async () => { const { Worker } = await import("node:worker_threads"); new Worker("1", { eval: true }); },
  "node-v8": async () => { const v8 = await import("node:v8"); v8.setFlagsFromString("--max-heap-size=4000"); },
  "node-vm": async () => { const vm = await import("node:vm"); return new Response(String(vm.runInThisContext("1"))); },
  "sockets": async (env) => {
    const { connect } = await import("cloudflare:sockets");
    const socket = connect({ hostname: "127.0.0.1", port: Number(env.PORT) });
    await socket.opened;
    const writer = socket.writable.getWriter();
    await writer.write(new TextEncoder().encode("x"));
  },
  "many-sockets": async (env) => {
    const { connect } = await import("cloudflare:sockets");
    const all = Array.from({ length: 200 }, () => connect("127.0.0.1:" + env.PORT));
    await Promise.allSettled(all.map((each) => each.opened));
    throw new Error("done");
  },
  "web-socket": async (env) => {
    const socket = new WebSocket(env.ADMIN.replace("http", "ws"));
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = (e) => reject(new Error(e.message)); });
  },
  "event-source": async (env) => {
    const source = new EventSource(env.ADMIN);
    await new Promise((resolve, reject) => { source.onopen = resolve; source.onerror = () => reject(new Error("refused")); });
  },
  "admin": async (env) => {
    for (const url of [env.ADMIN, env.ADMIN.replace("127.0.0.1", "localhost"), env.ADMIN.replace("127.0.0.1", "0.0.0.0"), env.ADMIN.replace("127.0.0.1", "[::ffff:127.0.0.1]")]) {
      let response; try { response = await fetch(url); } catch (error) { note(error.message); continue; }
      if (response.status < 400) throw new Error(`answered ${response.status}`);
    }
  },
  "native-fetch": async (env) => {
    const native = Object.getPrototypeOf(globalThis).fetch ?? (delete globalThis.fetch, globalThis.fetch);
    const response = await native.call(globalThis, env.ADMIN);
    throw new Error(`status ${response.status}`);
  },
  "native-fetch-forged": async (env) => {
    delete globalThis.fetch;
    for (const control of ["call", "log", "done", "", "x".repeat(100_000)]) for (const id of ["1", "", "f".repeat(16), "\u00ff", "x".repeat(100_000)]) {
      const response = await fetch("http://edgesim/", { method: "POST", headers: { "x-edgesim-id": id, "x-edgesim-control": control }, body: '["",  "read", [1], {}]' });
      if (response.status < 400) throw new Error(`status ${response.status}`);
    }
  },
  "native-fetch-many": async () => {
    delete globalThis.fetch;
    const all = Array.from({ length: 1000 }, () => fetch("http://edgesim/").then((r) => r.status));
    return new Response(String((await Promise.allSettled(all)).length));
  },
  "glue-port": async () => { const r = await fetch("http://edgesim/", { headers: { "x-edgesim-invoke": '{"handler":"boot"}' } }); throw new Error(`status ${r.status}`); },
  "many-fetches": async () => {
    const all = await Promise.allSettled(Array.from({ length: 300 }, () => fetch("http://localhost:1/")));
    throw all.find((each) => each.status === "rejected").reason;
  },
  "service-recursion": async (env) => env.SELF.fetch("http://x/attack/service-recursion", { method: "POST" }),
  "service-fan-out": async (env) => { await Promise.all(Array.from({ length: 100 }, () => env.SELF.fetch("http://x/attack/service-fan-out", { method: "POST" }))); return new Response(); },
  "rpc-recursion": async (env) => env.SELF.recursion(),
  "rpc-getters": async (env) => new Response(JSON.stringify(await env.SELF.hostile({ get x() { throw new Error("getter"); } }))),
  "rpc-proxy": async (env) => { await env.SELF.echo(new Proxy({}, { ownKeys() { for (;;); } })); },
  "rpc-cycle": async (env) => { const a = {}; a.a = a; await env.SELF.echo(a); },
  "rpc-deep": async (env) => { let a = []; for (let i = 0; i < 100_000; i++) a = [a]; await env.SELF.echo(a); },
  "rpc-huge": async (env) => { await env.SELF.echo("x".repeat(60_000_000)); },
  "rpc-methods": async (env) => {
    for (const name of ["constructor", "fetch", "__proto__", "toString", "hasOwnProperty", "then", "env", "ctx", "__defineGetter__"]) {
      let found; try { found = await env.SELF[name]?.("x"); } catch (error) { note(error.message); continue; }
      if (name !== "fetch" && found !== undefined) throw new Error(`called ${name}`);
    }
  },
  "rpc-prototype": async (env) => { const found = await env.SELF.echo(JSON.parse('{"__proto__": {"polluted": 1}, "constructor": {"prototype": 1}}')); if ({}.polluted || found.polluted) throw new Error("polluted"); },
  // --- HTTP ---
  "header-bomb": () => { const headers = new Headers(); for (let i = 0; i < 100_000; i++) headers.append(`x-${i}`, "x".repeat(1000)); return new Response("x", { headers }); },
  "header-many": () => { const headers = new Headers(); for (let i = 0; i < 10_000; i++) headers.append(`x-${i}`, "x".repeat(100)); return new Response("x", { headers }); },
  "header-long": () => new Response("x", { headers: { x: "x".repeat(50_000_000) } }),
  "request-header-bomb": async (env) => { const headers = new Headers(); for (let i = 0; i < 20_000; i++) headers.append(`x-${i}`, "x".repeat(1000)); return env.OTHER.fetch("http://x/", { headers }); },
  "url-bomb": async (env) => env.OTHER.fetch("http://x/" + "x".repeat(20_000_000)),
  "framing": () => new Response("body", { headers: { "content-length": "1000000", "transfer-encoding": "gzip, chunked", connection: "upgrade", "keep-alive": "x", trailer: "x", upgrade: "websocket" } }),
  "framing-204": () => new Response(null, { status: 204, headers: { "content-length": "100" } }),
  "framing-fixed": () => { const { readable, writable } = new FixedLengthStream(100); const writer = writable.getWriter(); writer.write(new Uint8Array(10)).then(() => writer.abort(new Error("short"))).catch(() => 1); return new Response(readable); },
  "status-text": () => new Response("x", { statusText: "a".repeat(1_000_000) }),
  "platform-headers": () => new Response("x", { headers: { "x-edgesim-kind": "done", "x-edgesim-id": "1", "x-edgesim-error": "x" } }),
  "switching-protocols": () => { const [client, server] = Object.values(new WebSocketPair()); server.accept(); return new Response(null, { status: 101, webSocket: client }); },
  "response-of-another": () => { globalThis.kept ??= new Response("kept"); return globalThis.kept; },
  "no-response": () => ({ status: 200 }),
  "response-proxy": () => new Proxy(new Response("x"), {}),
  "gzip-bomb": () => new Response(new Uint8Array(100), { headers: { "content-encoding": "gzip" }, encodeBody: "manual" }),
  // --- exceptions and logs ---
  "exception-getters": () => { throw Object.defineProperties(new Error("x"), { message: { get() { throw 1; } }, stack: { get() { throw 2; } }, name: { get() { throw 3; } } }); },
  "exception-objects": () => { throw Object.assign(new Error("x"), { message: { toString() { return { toString: 1 }; } }, stack: Symbol("x"), name: null }); },
  "exception-proxy": () => { throw new Proxy(new Error("x"), { get() { throw new Error("trap"); }, getPrototypeOf() { throw new Error("trap"); } }); },
  "exception-revoked": () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); throw proxy; },
  "exception-huge": () => { throw new Error("x".repeat(50_000_000)); },
  "exception-undefined": () => { throw undefined; },
  "exception-prepare": () => { Error.prepareStackTrace = (error, sites) => sites; null.x; },
  "exception-stack-forged": () => { throw Object.assign(new Error("x"), { stack: "Error: x\n    at f (worker:999999999999999999:1)\n    at g (worker:1:-1)\n" + "    at h (worker:1:1)\n".repeat(100_000) }); },
  "exceptions-many": (_, __, context) => { for (let i = 0; i < 100_000; i++) context.waitUntil(Promise.reject(new Error("x".repeat(100)))); },
  "log-flood": () => { for (let i = 0; i < 1e6; i++) console.log("x".repeat(1000)); },
  "log-huge": () => console.log("x".repeat(100_000_000)),
  "log-cyclic": () => { const a = {}; a.a = a; console.log(a); },
  "log-deep": () => { let a = []; for (let i = 0; i < 1e5; i++) a = [a]; console.log(a); },
  "log-proxy": () => console.log(new Proxy({}, { get() { throw 1; }, ownKeys() { throw 2; }, getPrototypeOf() { throw 3; } })),
  "log-endless": () => console.log({ toJSON() { for (;;); } }),
  "log-to-json": () => console.log({ toJSON: () => ({ toJSON: () => console.log({ toJSON: () => 1 }) }) }),
  "log-of-another-time": () => { console.log("x"); Date.now = () => -1e300; console.log("y"); },
  "log-date-text": () => { Date.now = () => "x"; console.log("y"); },
  "log-getters": () => console.log({ get x() { console.log("inside"); return 1; } }),
  "console-all": () => { for (const name of Object.keys(console)) try { console[name]("x"); } catch (e) { note(e.message); } },
  // --- prototypes ---
  "spy": () => {
    spy(Headers.prototype, "get", "set", "delete", "append", "has");
    spy(Array.prototype, "push", "map", "slice", "splice", "join");
    spy(Promise.prototype, "then");
    spy(Promise, "resolve", "race", "all");
    spy(JSON, "parse", "stringify");
    spy(String.prototype, "includes", "split", "startsWith");
    spy(Function.prototype, "call", "bind");
    spy(Object, "keys", "entries", "assign", "fromEntries", "defineProperty");
    spy(Reflect, "apply", "get", "has");
    spyGetter(Request.prototype, "headers", "url", "body");
    spyGetter(Response.prototype, "headers", "body");
    for (const name of ["Request", "Response", "Headers", "Date", "Promise", "String"]) {
      const target = globalThis[name];
      globalThis[name] = new Proxy(target, { construct(_, args, type) { note(args); return construct(target, args, type); } });
    }
    for (const name of ["then", "get", "set", "toJSON", "cf", "headers", "id", "0", Symbol.iterator]) {
      Object.defineProperty(Object.prototype, name, { __proto__: null, get() { note(this); return undefined; }, set(value) { note(this, value); define(this, name, { __proto__: null, value, writable: true, configurable: true, enumerable: true }); }, configurable: true });
    }
    Error.prepareStackTrace = (error, sites) => { for (let at = 0; at < sites.length; at++) note(sites[at].getThis(), sites[at].getFunction()); return error.message; };
  },
  "state": () => { kept.push("state"); globalThis.leak = 1; },
  "env": (env) => { env.TEXT = "changed"; env.B = null; delete env.SELF; env.NEW = 1; },
};

const POISONS = {
  "poison-object": () => { for (const name of ["toJSON", "then", "cf", "headers", "method", "body", "get", "set", "signal", "id", "handler", "outcome", "value", "error", "redirect", "encodeBody", "status"]) Object.defineProperty(Object.prototype, name, { __proto__: null, get() { note(this); return undefined; }, set(v) { note(v); }, configurable: true }); },
  "poison-object-values": () => { Object.assign(Object.prototype, { method: "PUT", body: "poisoned", cf: { a: 1 }, redirect: "error", headers: { a: "b" }, status: 500, fetch: refuse }); },
  "poison-to-json": () => { Object.prototype.toJSON = () => "poisoned"; },
  "poison-object-functions": () => { for (const name of Object.getOwnPropertyNames(Object)) if (typeof Object[name] === "function" && name !== "prototype") poison(Object, name, refuse); },
  "poison-array": () => { for (const name of Object.getOwnPropertyNames(Array.prototype)) if (typeof Array.prototype[name] === "function" && name !== "constructor") poison(Array.prototype, name, refuse); poison(Array, "from", refuse); poison(Array, "isArray", refuse); },
  "poison-array-index": () => { for (let i = 0; i < 10; i++) Object.defineProperty(Array.prototype, i, { get() { return "poisoned"; }, set(v) { note(v); }, configurable: true }); },
  "poison-iterator": () => { poison(Array.prototype, Symbol.iterator, refuse); poison(String.prototype, Symbol.iterator, refuse); poison(Map.prototype, Symbol.iterator, refuse); poison(Object.prototype, Symbol.iterator, refuse); },
  "poison-then": () => { poison(Promise.prototype, "then", refuse); },
  "poison-then-getter": () => { Object.defineProperty(Promise.prototype, "then", { get: () => refuse, configurable: true }); },
  "poison-then-locked": () => { Object.defineProperty(Promise.prototype, "then", { value: refuse, writable: false, configurable: false }); },
  "poison-promise": () => { for (const name of ["catch", "finally"]) poison(Promise.prototype, name, refuse); for (const name of ["resolve", "reject", "race", "all", "any", "allSettled"]) poison(Promise, name, refuse); globalThis.Promise = refuse; },
  "poison-promise-constructor": () => { Object.defineProperty(Promise.prototype, "constructor", { get: refuse }); },
  "poison-promise-species": () => { Object.defineProperty(Promise, Symbol.species, { get: refuse }); },
  "poison-function": () => { for (const name of ["call", "apply", "bind", "toString"]) poison(Function.prototype, name, refuse); },
  "poison-json": () => { JSON.parse = JSON.stringify = refuse; globalThis.JSON = null; },
  "poison-string": () => { for (const name of Object.getOwnPropertyNames(String.prototype)) if (typeof String.prototype[name] === "function" && name !== "constructor") poison(String.prototype, name, refuse); globalThis.String = refuse; },
  "poison-number": () => { Number.isFinite = refuse; globalThis.Number = refuse; poison(Number.prototype, "toString", refuse); Math.max = Math.floor = refuse; },
  "poison-map-set": () => { for (const kind of [Map, Set, WeakMap, WeakSet]) for (const name of Object.getOwnPropertyNames(kind.prototype)) if (name !== "constructor" && name !== "size") poison(kind.prototype, name, refuse); globalThis.Map = globalThis.Set = refuse; },
  "poison-headers": () => { for (const name of ["get", "set", "append", "delete", "entries", "keys", "has", "forEach"]) poison(Headers.prototype, name, refuse); poison(Headers.prototype, Symbol.iterator, refuse); globalThis.Headers = refuse; },
  "poison-request": () => { for (const name of Object.getOwnPropertyNames(Request.prototype)) if (name !== "constructor") Object.defineProperty(Request.prototype, name, { get: refuse, configurable: true }); globalThis.Request = refuse; },
  "poison-response": () => { for (const name of Object.getOwnPropertyNames(Response.prototype)) if (name !== "constructor") Object.defineProperty(Response.prototype, name, { get: refuse, configurable: true }); Response.json = refuse; globalThis.Response = refuse; },
  "poison-has-instance": () => { for (const kind of [Response, Request, Headers, Error, Date, ArrayBuffer]) Object.defineProperty(kind, Symbol.hasInstance, { value: refuse, configurable: true }); },
  "poison-globals": () => { for (const name of ["fetch", "URL", "atob", "btoa", "encodeURIComponent", "decodeURIComponent", "setTimeout", "clearTimeout", "queueMicrotask", "structuredClone", "Error", "TypeError", "DOMException", "Symbol", "Reflect", "Proxy", "Uint8Array", "ArrayBuffer", "Blob", "Date", "Object", "Array", "TextEncoder", "AbortController", "ReadableStream"]) globalThis[name] = refuse; },
  "poison-console": () => { for (const name of Object.keys(console)) console[name] = refuse; globalThis.console = null; },
  "poison-date": () => { Date.now = refuse; poison(Date.prototype, "getTime", refuse); globalThis.Date = refuse; },
  "poison-als": async () => { const { AsyncLocalStorage } = await import("node:async_hooks"); for (const name of Object.getOwnPropertyNames(AsyncLocalStorage.prototype)) if (name !== "constructor") poison(AsyncLocalStorage.prototype, name, refuse); },
  "poison-bindings": (env) => { for (const each of [env.B, env.Q]) { const prototype = Object.getPrototypeOf(each); for (const name of Object.getOwnPropertyNames(prototype)) if (name !== "constructor") poison(prototype, name, refuse); } },
  "poison-context": (_, __, context) => { const prototype = Object.getPrototypeOf(context); for (const name of Object.getOwnPropertyNames(prototype)) if (name !== "constructor") poison(prototype, name, refuse); },
  "poison-reflect": () => { for (const name of Object.getOwnPropertyNames(Reflect)) if (typeof Reflect[name] === "function") poison(Reflect, name, refuse); },
  "poison-error": () => { Error.prepareStackTrace = refuse; Error.captureStackTrace = refuse; Object.defineProperty(Error.prototype, "message", { get: refuse }); },
};

// Taken before anything is poisoned, as a library would.
const native = { Response, log: console.log, put: (env) => env.B.put, stringify: JSON.stringify };

/** Every text that is reachable from the values, a line each. */
function strings(values) {
  const found = [], visited = new NativeSet(), left = [values];
  for (let at = 0; at < left.length && at < 200_000; at++) {
    const each = left[at];
    if (typeof each === "string") found[found.length] = each;
    if (each === null || (typeof each !== "object" && typeof each !== "function")) continue;
    if (apply(hasOf, visited, [each])) continue;
    apply(addOf, visited, [each]);
    try {
      if (each instanceof NativeHeaders) { const it = apply(entriesOf, each, []); for (let next = it.next(); !next.done; next = it.next()) left[left.length] = next.value; }
      const names = ownKeys(each);
      for (let i = 0; i < names.length; i++) { const d = describe(each, names[i]); if (d.get === undefined) left[left.length] = d.value; else if (typeof each === "object") left[left.length] = apply(d.get, each, []); }
      left[left.length] = prototypeOf(each);
    } catch { continue; }
  }
  let text = "";
  for (let at = 0; at < found.length; at++) text += found[at] + "\n";
  return text;
}

async function honest(request, env, context) {
  console.log("honest");
  await env.B.put("honest", "value");
  const text = await (await env.B.get("honest")).text();
  return new Response(`${text} ${env.TEXT} ${kept.length} ${globalThis.leak}`);
}

async function probe(env, context, log, put, kv, Answer) {
  log("probe");
  await put("probe", "value");
  await kv("put", "probe", "value", { metadata: { is: "probe" } });
  const { value, metadata } = await kv("getWithMetadata", "probe");
  const rows = await kv("get", ["probe"]);
  const { keys } = await kv("list");
  await kv("delete", "probe");
  if (value + metadata.is + apply(getOf, rows, ["probe"]) + keys[0].name !== "valueprobevalueprobe") {
    throw "not what was stored";
  }
  return new Answer("probe");
}

const { get: getOf } = Map.prototype, { KV } = globalEnv, kvMethods = { __proto__: null };
for (const name of ["put", "get", "getWithMetadata", "list", "delete"]) kvMethods[name] = KV[name];
const values = (name, ...args) => apply(kvMethods[name], KV, args);
const B = globalEnv.B, putOf = B.put, bucket = { put: (...args) => apply(putOf, B, args) };
export default class extends WorkerEntrypoint {
  async fetch(request) {
    const { env, ctx } = this;
    const path = split(urlOf(request));
    const kind = path[3], name = path[4];
    if (kind === "honest") return await honest(request, env, ctx);
    if (kind === "probe") return await probe(env, ctx, native.log, bucket.put, values, native.Response);
    if (kind === "wait") { await env.OTHER.fetch("http://x/slow"); return new Response("waited"); }
    if (kind === "seen") return new native.Response(strings(seen));
    const attack = ATTACKS[name] ?? POISONS[name];
    return (await attack(env, request, ctx)) ?? new native.Response("ok");
  }
  async recursion() { return this.env.SELF.recursion(); }
  async echo(value) { return value; }
  async hostile(value) { return { get x() { throw new Error("getter of the target"); } }; }
  async queue(batch) { }
}
const urlGetter = Object.getOwnPropertyDescriptor(Request.prototype, "url").get;
const urlOf = (request) => apply(urlGetter, request, []);
const NativeSet = Set, { has: hasOf, add: addOf } = Set.prototype;
const NativeHeaders = Headers, { entries: entriesOf } = Headers.prototype;
const { split: splitText } = String.prototype;
const split = (text) => apply(splitText, text, ["/"]);
