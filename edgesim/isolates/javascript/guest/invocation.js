// One invocation inside its isolate: its calls to the platform, its log, its waitUntil work.

import { env } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
import { pack, parse } from "./values.js";
import { install, randomness, setClock, whenIdle, whole } from "./virtual.js";

const { parse: parseJson, stringify } = JSON; // a Worker may replace them
const PLATFORM = "EDGESIM_PLATFORM";
const CONTROL = "x-edgesim-control";
const ID = "x-edgesim-id";
const CALL = "x-edgesim-call";
const VALUE = "x-edgesim-value";
const ERROR = "x-edgesim-error";
const BINDING = "x-edgesim-binding";
const NUMBER = "x-edgesim-number";
const IDLE = "x-edgesim-idle";
const OURS = "x-edgesim-";
const LOG_MS = 50;
const DIAGNOSTIC_CHARS_MAX = 256 * 1024;
const OPEN_MAX = 64; // requests of one invocation to the platform at a time; further ones wait
const GLOBAL_SCOPE =
  "Disallowed operation called within global scope. Asynchronous I/O (ex: fetch() or connect()), " +
  "setting a timeout, and generating random values are not allowed within global scope. To fix " +
  "this error, perform this operation within a handler. " +
  "https://developers.cloudflare.com/workers/runtime-apis/handlers/";

const platform = env[PLATFORM];
delete env[PLATFORM];
export const virtual = env.EDGESIM_VIRTUAL;
delete env.EDGESIM_VIRTUAL;
const running = new AsyncLocalStorage();
const startTimer = globalThis.setTimeout;

/** The invocation that the calling code belongs to; null in global scope. */
export function currentOrNull() {
  return running.getStore() ?? null;
}

/** The invocation that the calling code belongs to; an Error in global scope. */
export function current() {
  const invocation = running.getStore();
  if (invocation === undefined) throw new Error(GLOBAL_SCOPE);
  return invocation;
}

if (virtual) install((ms) => current().sleep(ms));

export class Invocation {
  constructor({ id, seed, now }) {
    this.id = id;
    this.calls = 0;
    this.replies = 0;
    this.noting = false;
    if (virtual) {
      [this.now, this.steady] = now;
      this.random = randomness(seed);
    }
    this.outcome = "ok";
    this.exceptions = [];
    this.waiting = [];
    this.logs = [];
    this.diagnostics = [];
    this.diagnosticChars = 0;
    this.flushes = null;
    this.flushed = null;
    this.open = 0;
    this.queued = [];
  }

  run(work) {
    return running.run(this, work);
  }

  /** Calls a method of a binding and returns its result. */
  async call(binding, method, args = [], options = {}) {
    const body = stringify([binding, method, pack(args), pack(options ?? {})]);
    return (await answer(await this.send("call", body))).value;
  }

  /** The same, with a body of bytes that crosses as the last argument; `value` and `body`. */
  async callWithBody(binding, method, args, options, body) {
    const call = stringify([binding, method, pack(args), pack(options ?? {})]);
    return answer(await this.send("call", body, { [CALL]: encodeURIComponent(call) }));
  }

  /** Sends a request through a service binding, or to the outside if `binding` is "". */
  async fetch(binding, input, init) {
    const request = new Request(input, init);
    for (const name of [...request.headers.keys()]) {
      if (name.startsWith(OURS)) request.headers.delete(name);
    }
    request.headers.set(ID, this.id);
    request.headers.set(BINDING, encodeURIComponent(binding));
    const response = await this.admit(() => this.exchange(request));
    const error = response.headers.get(ERROR);
    if (error !== null) throw thrown(parseJson(decodeURIComponent(error)));
    return response;
  }

  log(level, message) {
    this.logs.push([level, message, Date.now()]);
    if (virtual) return;
    // What an invocation that goes on for long has logged is not to be lost with its isolate.
    this.flushes ??= startTimer(() => (this.flushed = this.flush()), LOG_MS);
  }

  /** Records a message of node:diagnostics_channel, unless the trace has no room for more. */
  diagnose(channel, message) {
    if (this.diagnosticChars > DIAGNOSTIC_CHARS_MAX) return;
    const json = stringify(message) ?? "null";
    this.diagnosticChars += json.length;
    this.diagnostics.push([String(channel), parseJson(json), Date.now()]);
  }

  async flush() {
    this.flushes = null;
    if (this.logs.length) await this.send("log", stringify(this.takeLogs()));
  }

  takeLogs() {
    return this.logs.splice(0);
  }

  waitUntil(work) {
    this.waiting.push(Promise.resolve(work));
  }

  /** Records an uncaught exception. */
  fail(error) {
    this.outcome = "exception";
    this.exceptions.push(described(error));
  }

  /** Waits for the waitUntil work, which may call waitUntil again, for at most `limitMs`. */
  async settle(limitMs) {
    if (!this.waiting.length) return;
    const late = Symbol("late");
    const limit = virtual
      ? this.sleep(limitMs).then(() => late)
      : new Promise((resolve) => startTimer(resolve, limitMs, late));
    for (let at = 0; at < this.waiting.length; at++) {
      try {
        if ((await Promise.race([this.waiting[at], limit])) !== late) continue;
        this.log("warn", [
          "waitUntil() tasks did not complete within the allowed time after invocation end and " +
            "have been cancelled.",
        ]);
        return;
      } catch (error) {
        this.fail(error);
      }
    }
  }

  /** The report of the finished invocation, as JSON. */
  async report(result = null) {
    await this.flushed;
    const { outcome, exceptions, diagnostics } = this;
    return stringify({ outcome, exceptions, logs: this.takeLogs(), diagnostics, result });
  }

  send(control, body, headers = {}) {
    const all = { [CONTROL]: control, [ID]: this.id, ...headers };
    const request = new Request("http://edgesim/", { method: "POST", headers: all, body });
    return this.admit(() => this.exchange(request));
  }

  /** Sends a request to the platform; in virtual time with its number, and with a whole reply. */
  async exchange(request) {
    if (!virtual) return platform.fetch(request);
    request.headers.set(NUMBER, String(++this.calls));
    this.note();
    const response = await whole(await platform.fetch(request));
    setClock(this, response);
    this.replies++;
    this.note();
    return response;
  }

  /** Records that the event has been read whole; until then the platform waits. */
  begin() {
    if (virtual) this.note();
  }

  /** Tells the platform, once nothing is left to run, how far this invocation is. */
  note() {
    if (this.noting) return;
    this.noting = true;
    whenIdle(() => {
      this.noting = false;
      const headers = { [ID]: this.id, [IDLE]: `${this.calls},${this.replies}` };
      return platform.fetch("http://edgesim/", { method: "POST", headers });
    });
  }

  /** Waits in virtual time. */
  async sleep(ms) {
    const call = stringify(["", "sleepUntil", [(this.steady + ms) / 1000], {}]);
    const headers = { [CONTROL]: "call", [ID]: this.id };
    const request = new Request("http://edgesim/", { method: "POST", headers, body: call });
    await answer(await this.exchange(request));
  }

  async admit(send) {
    while (this.open >= OPEN_MAX) await new Promise((resolve) => this.queued.push(resolve));
    this.open++;
    try {
      return await send();
    } finally {
      this.open--;
      this.queued.shift()?.();
    }
  }
}

/** Reads the platform's reply to a call; throws its error. */
async function answer(response) {
  const value = response.headers.get(VALUE);
  if (value !== null) return { value: parse(decodeURIComponent(value)), body: response.body };
  const reply = parse(await response.text());
  if (reply.error) throw thrown(reply.error);
  return { value: reply.value, body: null };
}

function thrown({ name, message }) {
  const kind = globalThis[name];
  if (typeof kind === "function" && (kind === Error || kind.prototype instanceof Error)) {
    return new kind(message);
  }
  return name.endsWith("Error") && name !== "Error" ? new DOMException(message, name) : new Error(message);
}

/** [name, message, stack] of what worker code threw, as in a trace. */
export function described(error) {
  if (!(error instanceof Error)) return ["Error", text(error), null];
  const message = text(error.message);
  const stack = text(error.stack ?? "");
  const head = `${text(error.name)}${message ? `: ${message}` : ""}\n`;
  return [kindOf(error), message, stack.startsWith(head) ? stack.slice(head.length) : stack];
}

const KINDS = [TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError];

function kindOf(error) {
  if (error instanceof DOMException) return error.name;
  return KINDS.find((kind) => error instanceof kind)?.name ?? "Error";
}

function text(value) {
  try {
    return String(value);
  } catch {
    return "[object that cannot be shown]";
  }
}
