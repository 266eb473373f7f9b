// One invocation inside its isolate: its calls to the platform, its log, its waitUntil work.

import { env } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
import {
  DOMException, Error, Promise, Request, String, apply, bodyOfResponse, calling,
  decodeURIComponent, deleteHeader, encodeURIComponent, endsWith, floor, getHeader,
  headersOfRequest, headersOfResponse, isA, join, list, parseJson, promised, race, realNow,
  setHeader, slice, startTimer, startsWith, stringify, textOfResponse,
} from "./safe.js";
import { pack, parse } from "./values.js";
import { install, randomness, setClock, whenIdle, whole } from "./virtual.js";

const PLATFORM = "EDGESIM_PLATFORM";
const CONTROL = "x-edgesim-control";
const ID = "x-edgesim-id";
const CALL = "x-edgesim-call";
const VALUE = "x-edgesim-value";
const ERROR = "x-edgesim-error";
const BINDING = "x-edgesim-binding";
const NUMBER = "x-edgesim-number";
const IDLE = "x-edgesim-idle";
const URL = "http://edgesim/";
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
const fetchOfPlatform = platform.fetch;
const sendRequest = (...args) => apply(fetchOfPlatform, platform, args);
export const virtual = env.EDGESIM_VIRTUAL;
delete env.EDGESIM_VIRTUAL;
const running = new AsyncLocalStorage();
const storeOf = calling(running.getStore);
const runIn = calling(running.run);

/** The invocation that the calling code belongs to; null in global scope. */
export function currentOrNull() {
  return storeOf(running) ?? null;
}

/** The invocation that the calling code belongs to; an Error in global scope. */
export function current() {
  const invocation = storeOf(running);
  if (invocation === undefined) throw new Error(GLOBAL_SCOPE);
  return invocation;
}

if (virtual) install((ms) => current().sleep(ms));

export class Invocation {
  // Fields, which are defined: an assignment would call a setter of Object.prototype.
  calls = 0;
  over = 0;
  failed = "";
  noting = false;
  outcome = "ok";
  exceptions = list();
  waiting = list();
  logs = list();
  diagnostics = list();
  diagnosticChars = 0;
  dataPoints = 0;
  flushes = null;
  flushed = null;
  open = 0;
  queued = list();
  admitted = 0;
  id;
  now;
  steady;
  random;

  constructor({ id, seed, now }) {
    this.id = id;
    if (!virtual) return;
    this.now = now[0];
    this.steady = now[1];
    this.random = randomness(seed);
  }

  run(work) {
    return runIn(running, this, work);
  }

  /** Calls a method of a binding and returns its result. */
  async call(binding, method, args = list(), options = null) {
    return (await answer(await this.send("call", callText(binding, method, args, options)))).value;
  }

  /** The same, with a body of bytes that crosses as the last argument; `value` and `body`. */
  async callWithBody(binding, method, args, options, body) {
    const head = encodeURIComponent(callText(binding, method, args, options));
    return await answer(await this.send("call", body, head));
  }

  /** Sends a request through a service binding, or to the outside if `binding` is "". */
  async fetch(binding, input, init) {
    const request = new Request(input, init);
    const headers = headersOfRequest(request);
    deleteHeader(headers, CONTROL);
    deleteHeader(headers, NUMBER);
    deleteHeader(headers, IDLE);
    setHeader(headers, ID, this.id);
    setHeader(headers, BINDING, encodeURIComponent(binding));
    const response = await this.admit(() => this.exchange(request));
    const error = getHeader(headersOfResponse(response), ERROR);
    if (error !== null) throw thrown(parseJson(decodeURIComponent(error)));
    return response;
  }

  unixMs() {
    return virtual ? floor(this.now) : realNow();
  }

  /** Logs a message: JSON of an array. */
  log(level, message) {
    this.logs[this.logs.length] = `["${level}",${message},${this.unixMs()}]`;
    if (virtual) return;
    // What an invocation that goes on for long has logged is not to be lost with its isolate.
    this.flushes ??= startTimer(() => (this.flushed = this.flush()), LOG_MS);
  }

  /** Records a message of node:diagnostics_channel, unless the trace has no room for more. */
  diagnose(channel, message) {
    if (this.diagnosticChars > DIAGNOSTIC_CHARS_MAX) return;
    const json = stringify(message) ?? "null";
    this.diagnosticChars += json.length;
    const entry = `[${stringify(String(channel))},${json},${this.unixMs()}]`;
    this.diagnostics[this.diagnostics.length] = entry;
  }

  async flush() {
    this.flushes = null;
    if (this.logs.length) await this.send("log", this.takeLogs());
  }

  /** JSON of the log since the last call. */
  takeLogs() {
    const text = `[${join(this.logs, ",")}]`;
    this.logs = list();
    return text;
  }

  waitUntil(work) {
    this.waiting[this.waiting.length] = promised(work);
  }

  /** Records an uncaught exception. */
  fail(error) {
    this.outcome = "exception";
    this.exceptions[this.exceptions.length] = stringify(described(error));
  }

  /** Waits for the waitUntil work, which may call waitUntil again, for at most `limitMs`. */
  async settle(limitMs) {
    if (!this.waiting.length) return;
    let isLate = false;
    const limit = this.after(limitMs, () => (isLate = true));
    for (let at = 0; at < this.waiting.length; at++) {
      try {
        await race(this.waiting[at], limit);
        if (!isLate) continue;
        this.log(
          "warn",
          '["waitUntil() tasks did not complete within the allowed time after invocation end and ' +
            'have been cancelled."]',
        );
        return;
      } catch (error) {
        this.fail(error);
      }
    }
  }

  /** Waits, then calls `act`. */
  async after(ms, act) {
    if (virtual) await this.sleep(ms);
    else await new Promise((resolve) => startTimer(resolve, ms));
    act();
  }

  /** The report of the finished invocation, as JSON; `result` is JSON too. */
  async report(result = "null") {
    await this.flushed;
    const exceptions = join(this.exceptions, ",");
    return (
      `{"outcome":"${this.outcome}","exceptions":[${exceptions}],` +
      `"logs":${this.takeLogs()},"diagnostics":[${join(this.diagnostics, ",")}],` +
      `"result":${result}}`
    );
  }

  send(control, body, call) {
    const headers = { __proto__: null, [CONTROL]: control, [ID]: this.id };
    if (call !== undefined) headers[CALL] = call;
    const request = new Request(URL, { __proto__: null, method: "POST", headers, body });
    return this.admit(() => this.exchange(request));
  }

  /** Sends a request to the platform; in virtual time with its number, and with a whole reply. */
  async exchange(request) {
    if (!virtual) return await sendRequest(request);
    const number = ++this.calls;
    setHeader(headersOfRequest(request), NUMBER, String(number));
    this.note();
    try {
      const response = await whole(await sendRequest(request));
      setClock(this, response);
      return response;
    } catch (error) {
      this.failed += `,${number}`;
      throw error;
    } finally {
      this.over++;
      this.note();
    }
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
      const headers = { __proto__: null, [ID]: this.id, [IDLE]: `${this.calls},${this.over}${this.failed}` };
      return sendRequest(URL, { __proto__: null, method: "POST", headers });
    });
  }

  /** Waits in virtual time. */
  async sleep(ms) {
    const call = `["","sleepUntil",[${(this.steady + ms) / 1000}],{}]`;
    const headers = { __proto__: null, [CONTROL]: "call", [ID]: this.id };
    const request = new Request(URL, { __proto__: null, method: "POST", headers, body: call });
    await answer(await this.exchange(request));
  }

  async admit(send) {
    while (this.open >= OPEN_MAX) {
      await new Promise((resolve) => (this.queued[this.queued.length] = resolve));
    }
    this.open++;
    try {
      return await send();
    } finally {
      this.open--;
      if (this.admitted < this.queued.length) {
        this.queued[this.admitted]();
        this.queued[this.admitted++] = null;
      }
    }
  }
}

/** A call as JSON. */
function callText(binding, method, args, options) {
  const given = stringify(pack(args));
  const named = options === null || options === undefined ? "{}" : stringify(pack(options));
  return `[${stringify(binding)},${stringify(method)},${given},${named}]`;
}

/** Reads the platform's reply to a call; throws its error. */
async function answer(response) {
  const value = getHeader(headersOfResponse(response), VALUE);
  if (value !== null) {
    const body = bodyOfResponse(response);
    return { __proto__: null, value: parse(decodeURIComponent(value)), body };
  }
  const { error = null, value: result } = { __proto__: null, ...parse(await textOfResponse(response)) };
  if (error !== null) throw thrown(error);
  return { __proto__: null, value: result, body: null };
}

const {
  EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError,
} = globalThis;
const KINDS = { __proto__: null, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError };
const THROWN = { __proto__: null, ...KINDS, Error };
const kindNames = Object.keys(KINDS);

function thrown({ name, message }) {
  const kind = THROWN[name];
  if (kind !== undefined) return new kind(message);
  return endsWith(name, "Error") ? new DOMException(message, name) : new Error(message);
}

/** [name, message, stack] of what worker code threw, as in a trace. */
export function described(error) {
  const found = list();
  found[0] = "Error";
  found[1] = "[object that cannot be shown]";
  found[2] = null;
  try {
    if (!isA(Error, error)) {
      found[1] = String(error);
      return found;
    }
    found[0] = kindOf(error);
    found[1] = text(error.message);
    const stack = text(error.stack ?? "");
    const head = `${text(error.name)}${found[1] ? `: ${found[1]}` : ""}\n`;
    found[2] = startsWith(stack, head) ? slice(stack, head.length) : stack;
  } catch {
    // Its own getters throw; the rest stays as it is.
  }
  return found;
}

function kindOf(error) {
  if (isA(DOMException, error)) return text(error.name);
  for (let at = 0; at < kindNames.length; at++) {
    if (isA(KINDS[kindNames[at]], error)) return kindNames[at];
  }
  return "Error";
}

function text(value) {
  try {
    return String(value);
  } catch {
    return "[object that cannot be shown]";
  }
}
