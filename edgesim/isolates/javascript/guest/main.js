// Entry of a Worker's isolate: receives the platform's events and runs the Worker's handlers.

import { WorkerEntrypoint, env } from "cloudflare:workers";
import { MessageBatch, ScheduledController, traceItems } from "./events.js";
import { Invocation, current, described, virtual } from "./invocation.js";
import { bind } from "./bindings.js";
import { parse, pack } from "./values.js";
import { whole } from "./virtual.js";
import "./console.js";
import "./diagnostics.js";

const SPECS = "EDGESIM_BINDINGS";
const INVOKE = "x-edgesim-invoke";
const KIND = "x-edgesim-kind";
const DEFAULT = "Default";
const HANDLERS = ["fetch", "queue", "tail", "scheduled"];
const WAIT_UNTIL_MS = 30_000;
const EVENT_MS = 15 * 60_000;

const specs = env[SPECS];
delete env[SPECS];
let finished = null; // the end of the last invocation's work after its response
bind(env, specs);
globalThis.fetch = async (input, init) => current().fetch("", input, init);
const worker = await load();

/** The Worker's module, or why it does not load. */
async function load() {
  try {
    return await import("../worker");
  } catch (error) {
    return { error: described(error) };
  }
}

function isClass(target) {
  return typeof target === "function" && target.prototype instanceof WorkerEntrypoint;
}

/** The Worker's handlers and entrypoints, for the platform's first request. */
function boot() {
  if (worker.error !== undefined) return { error: worker.error };
  const main = worker.default;
  if (main === null || !["object", "function"].includes(typeof main)) return { handlers: null };
  const target = isClass(main) ? main.prototype : main;
  const named = Object.keys(worker).filter((name) => name !== "default" && isClass(worker[name]));
  return {
    handlers: HANDLERS.filter((name) => typeof target[name] === "function"),
    entrypoints: [DEFAULT, ...named],
  };
}

/** Calls a handler of an entrypoint: a class gets env and ctx by its constructor. */
function call(entrypoint, handler, event, context) {
  const target = entrypoint === DEFAULT ? worker.default : worker[entrypoint];
  if (isClass(target)) return new target(context, env)[handler](event);
  return target[handler](event, env, context);
}

export default {
  async fetch(request, _, context) {
    const head = JSON.parse(request.headers.get(INVOKE));
    if (head.handler === "ping") return new Response();
    if (head.handler === "settle") return new Response(await finished);
    if (head.handler === "boot") return Response.json(boot());
    const invocation = new Invocation(head);
    const settled = context.waitUntil.bind(context);
    Object.defineProperty(context, "waitUntil", { value: (work) => invocation.waitUntil(work) });
    return invocation.run(() =>
      head.handler === "fetch"
        ? serveFetch(invocation, head, request, context, settled)
        : serveEvent(invocation, head, request, context),
    );
  },
};

async function serveFetch(invocation, { entrypoint }, request, context, settled) {
  const headers = new Headers(request.headers);
  headers.delete(INVOKE);
  try {
    const received = await arrived(request, headers);
    invocation.begin();
    const response = await call(entrypoint, "fetch", received, context);
    if (!(response instanceof Response)) {
      throw new TypeError("Incorrect type for Promise: the Promise did not resolve to 'Response'.");
    }
    if (response.bodyUsed) {
      throw new TypeError(
        "Body has already been used. It can only be used once. Use tee() first if you need to " +
          "read it twice.",
      );
    }
    const marked = virtual ? await whole(response) : new Response(response.body, response);
    marked.headers.set(KIND, "response");
    finished = finish(invocation);
    settled(finished);
    return marked;
  } catch (error) {
    invocation.fail(error);
    await invocation.settle(WAIT_UNTIL_MS);
    return done(await invocation.report());
  }
}

/** The request as the Worker sees it; in virtual time with its body in memory. */
async function arrived(request, headers) {
  if (!virtual || request.body === null) return new Request(request, { headers });
  const { method, cf } = request;
  const bytes = await request.arrayBuffer();
  return new Request(request.url, { method, headers, cf, body: bytes.byteLength ? bytes : null });
}

async function finish(invocation) {
  await invocation.settle(WAIT_UNTIL_MS);
  await invocation.send("done", await invocation.report());
}

const EVENTS = {
  async queue(call, event) {
    const batch = new MessageBatch(event);
    return [call(batch), () => MessageBatch.decisionsOf(batch)];
  },
  async tail(call, event) {
    return [call(traceItems(event)), () => null];
  },
  async scheduled(call, event) {
    const controller = new ScheduledController(event);
    return [call(controller), () => ScheduledController.isFinal(controller)];
  },
};

async function serveEvent(invocation, { handler, entrypoint }, request, context) {
  const event = parse(await request.text());
  invocation.begin();
  let result = null;
  if (handler === "rpc") {
    try {
      result = pack(await callMethod(entrypoint, event, context));
    } catch (error) {
      invocation.fail(error);
    }
    await invocation.settle(WAIT_UNTIL_MS);
    return done(await invocation.report(result));
  }
  let outcome = () => null;
  try {
    const run = async (argument) => call(entrypoint, handler, argument, context);
    const [work, decided] = await EVENTS[handler](run, event);
    outcome = decided;
    await work;
  } catch (error) {
    invocation.fail(error);
  }
  await invocation.settle(handler === "queue" ? EVENT_MS : WAIT_UNTIL_MS);
  return done(await invocation.report(outcome()));
}

/** Calls an RPC method: one that the class defines, and that is no event handler. */
function callMethod(entrypoint, { method, args }, context) {
  const target = entrypoint === DEFAULT ? worker.default : worker[entrypoint];
  const known = isClass(target) && !HANDLERS.includes(method) && method !== "constructor";
  if (!known || typeof target.prototype[method] !== "function" || method in WorkerEntrypoint.prototype) {
    throw new TypeError(`The RPC receiver does not implement the method "${method}".`);
  }
  return new target(context, env)[method](...args);
}

function done(report) {
  return new Response(report, { headers: { [KIND]: "done" } });
}
