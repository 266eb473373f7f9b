// Entry of a Worker's isolate: receives the platform's events and runs the Worker's handlers.

import { WorkerEntrypoint, env } from "cloudflare:workers";
import { MessageBatch, ScheduledController, decisionsOf, isFinal, traceItems } from "./events.js";
import { Invocation, current, described, virtual } from "./invocation.js";
import { bind } from "./bindings.js";
import {
  Headers, Request, Response, TypeError, apply, bodyOfRequest, bodyOfResponse, bytesOfRequest,
  byteLength, calling, cfOfRequest, define, deleteHeader, getHeader, headersOfRequest,
  headersOfResponse, isA, isResponse, isUsed, keeping, keys, list, methodOfRequest, parseJson, setHeader,
  stringify, textOfRequest, urlOfRequest,
} from "./safe.js";
import { parse, pack } from "./values.js";
import { whole } from "./virtual.js";
import "./console.js";
import "./diagnostics.js";

const SPECS = "EDGESIM_BINDINGS";
const INVOKE = "x-edgesim-invoke";
const KIND = "x-edgesim-kind";
const MODULE = "../worker"; // a name that the bundler leaves
const DEFAULT = "Default";
const HANDLERS = { __proto__: null, fetch: true, queue: true, tail: true, scheduled: true };
const RESERVED = {
  __proto__: null,
  alarm: true,
  connect: true,
  constructor: true,
  dup: true,
  fetch: true,
  webSocketClose: true,
  webSocketError: true,
  webSocketMessage: true,
};
const OWN = { __proto__: null, ctx: true, env: true };
const WAIT_UNTIL_MS = 30_000;
const EVENT_MS = 15 * 60_000;
const { prototype: ENTRYPOINT } = WorkerEntrypoint;

const specs = env[SPECS];
delete env[SPECS];
let finished = null; // the end of the last invocation's work after its response
let waitUntil = null; // workerd's own
bind(env, specs);
globalThis.fetch = async (input, init) => await current().fetch("", input, init);
const worker = await load();
const putBack = keeping();

/** The Worker's module, or why it does not load. */
async function load() {
  try {
    return await import(MODULE);
  } catch (error) {
    return { __proto__: null, error: described(error) };
  }
}

function isClass(target) {
  return typeof target === "function" && isA(WorkerEntrypoint, target.prototype);
}

/** The Worker's handlers and entrypoints, for the platform's first request: JSON. */
function boot() {
  if (worker.error !== undefined) return `{"error":${stringify(worker.error)}}`;
  const main = worker.default;
  if (main === null || (typeof main !== "object" && typeof main !== "function")) {
    return '{"handlers":null}';
  }
  const target = isClass(main) ? main.prototype : main;
  const handlers = list();
  const entrypoints = list();
  for (const name in HANDLERS) {
    if (typeof target[name] === "function") handlers[handlers.length] = name;
  }
  entrypoints[0] = DEFAULT;
  const names = keys(worker);
  for (let at = 0; at < names.length; at++) {
    const name = names[at];
    if (name !== "default" && isClass(worker[name])) entrypoints[entrypoints.length] = name;
  }
  return `{"handlers":${stringify(handlers)},"entrypoints":${stringify(entrypoints)}}`;
}

/** Calls a handler of an entrypoint: a class gets env and ctx by its constructor. */
function call(entrypoint, handler, event, context) {
  const target = entrypoint === DEFAULT ? worker.default : worker[entrypoint];
  if (isClass(target)) return new target(context, env)[handler](event);
  return target[handler](event, env, context);
}

export default {
  async fetch(request, _, context) {
    putBack();
    const head = parseJson(getHeader(headersOfRequest(request), INVOKE));
    if (head.handler === "ping") return new Response();
    if (head.handler === "settle") return new Response(await finished);
    waitUntil ??= calling(context.waitUntil);
    if (head.handler === "boot") return new Response(boot());
    const invocation = new Invocation(head);
    define(context, "waitUntil", (work) => invocation.waitUntil(work), false);
    return await invocation.run(() =>
      head.handler === "fetch"
        ? serveFetch(invocation, head, request, context)
        : serveEvent(invocation, head, request, context),
    );
  },
};

async function serveFetch(invocation, { entrypoint }, request, context) {
  const headers = new Headers(headersOfRequest(request));
  deleteHeader(headers, INVOKE);
  try {
    const received = await arrived(request, headers);
    invocation.begin();
    const response = await call(entrypoint, "fetch", received, context);
    if (!isResponse(response)) {
      throw new TypeError("Incorrect type for Promise: the Promise did not resolve to 'Response'.");
    }
    if (isUsed(response)) {
      throw new TypeError(
        "Body has already been used. It can only be used once. Use tee() first if you need to " +
          "read it twice.",
      );
    }
    const marked = virtual ? await whole(response) : new Response(bodyOfResponse(response), response);
    setHeader(headersOfResponse(marked), KIND, "response");
    finished = finish(invocation);
    waitUntil(context, finished);
    return marked;
  } catch (error) {
    invocation.fail(error);
    await invocation.settle(WAIT_UNTIL_MS);
    return done(await invocation.report());
  }
}

/** The request as the Worker sees it; in virtual time with its body in memory. */
async function arrived(request, headers) {
  if (!virtual || bodyOfRequest(request) === null) {
    return new Request(request, { __proto__: null, headers });
  }
  const bytes = await bytesOfRequest(request);
  return new Request(urlOfRequest(request), {
    __proto__: null,
    method: methodOfRequest(request),
    headers,
    cf: cfOfRequest(request),
    body: byteLength(bytes) ? bytes : null,
  });
}

async function finish(invocation) {
  await invocation.settle(WAIT_UNTIL_MS);
  await invocation.send("done", await invocation.report());
}

/** For each event: the handler's argument, and the decision that it holds afterwards. */
const EVENTS = {
  __proto__: null,
  queue: [(event) => new MessageBatch(event), decisionsOf],
  tail: [traceItems, () => null],
  scheduled: [(event) => new ScheduledController(event), isFinal],
};

async function serveEvent(invocation, { handler, entrypoint }, request, context) {
  const event = parse(await textOfRequest(request));
  invocation.begin();
  if (handler === "rpc") return await serveCall(invocation, entrypoint, event, context);
  const { 0: made, 1: decided } = EVENTS[handler];
  const argument = made(event);
  try {
    await call(entrypoint, handler, argument, context);
  } catch (error) {
    invocation.fail(error);
  }
  await invocation.settle(handler === "queue" ? EVENT_MS : WAIT_UNTIL_MS);
  return done(await invocation.report(stringify(decided(argument))));
}

async function serveCall(invocation, entrypoint, event, context) {
  let result = "null";
  try {
    result = stringify(pack(await callMethod(entrypoint, event, context)));
  } catch (error) {
    invocation.fail(error);
  }
  await invocation.settle(WAIT_UNTIL_MS);
  return done(await invocation.report(result));
}

/** Calls an RPC method: one that the class defines, and whose name workerd does not reserve. */
function callMethod(entrypoint, { method, args }, context) {
  if (method in RESERVED) {
    throw new TypeError(`'${method}' is a reserved method and cannot be called over RPC.`);
  }
  const target = entrypoint === DEFAULT ? worker.default : worker[entrypoint];
  const known = isClass(target) && !(method in OWN) && !(method in ENTRYPOINT);
  if (!known || typeof target.prototype[method] !== "function") {
    throw new TypeError(`The RPC receiver does not implement the method "${method}".`);
  }
  const instance = new target(context, env);
  return apply(instance[method], instance, args);
}

function done(report) {
  return new Response(report, { __proto__: null, headers: { __proto__: null, [KIND]: "done" } });
}
