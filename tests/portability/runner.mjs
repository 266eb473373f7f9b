// Runs scenarios as the platform would: Cloudflare's own SDK in CPython-on-WebAssembly, with real
// Request, Response and stream objects.  Only the bindings are fakes (bindings.mjs).
//
//   node runner.mjs JOB.json RESULTS.json
//
// Handlers are called as workerd's python-entrypoint-helper and introspection module call them:
// a new instance for each event, (x, env, ctx) with the extra two undefined, arguments and results
// through the SDK's python_from_rpc and python_to_rpc, surplus arguments dropped for fetch only.

import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { makeEnv, canonical, requestOf, responseOf, outboundFetch } from "./bindings.mjs";
import { ScheduledController, TraceItem, batchOf, traceItem } from "./events.mjs";

// Node would print the line that threw, and Pyodide's whole source is one line.
process.on("uncaughtException", (error) => {
  process.stderr.write(`${String(error.stack ?? error).slice(-3000)}\n`);
  process.exit(1);
});

const [, , jobFile, resultsFile] = process.argv;
const job = JSON.parse(readFileSync(jobFile, "utf8"));

// Time stands still, at the same moment on both sides.
Date.now = () => job.now_ms;
globalThis.Date = new Proxy(Date, {
  construct: (target, args) => new target(...(args.length ? args : [job.now_ms])),
});

// The scenario that is running.
const current = { env: {}, ctx: null, calls: [], outbound: {} };
globalThis.fetch = (input, init) => outboundFetch(current, input, init);

class ExecutionContext {
  constructor() {
    this.background = [];
  }
  get [Symbol.toStringTag]() {
    return "ExecutionContext";
  }
  waitUntil(promise) {
    this.background.push(Promise.resolve(promise));
  }
  passThroughOnException() {}
}

// Patches waitUntil as workerd does, so that it accepts coroutines and tasks; the SDK calls this.
function patchWaitUntil(ctx) {
  const original = ctx.waitUntil.bind(ctx);
  ctx.waitUntil = (work) =>
    original(
      (async () => {
        const kept = "copy" in work ? work.copy() : work;
        await kept;
        if ("destroy" in kept) kept.destroy();
      })(),
    );
}

function* patchEnv(patch) {
  const before = current.env;
  current.env = Object.assign(Object.create(before), patch);
  try {
    yield;
  } finally {
    current.env = before;
  }
}

const { loadPyodide } = await import(`${job.pyodide}/pyodide.mjs`);
const pyodide = await loadPyodide({ indexURL: dirname(new URL(import.meta.resolve(`${job.pyodide}/pyodide.mjs`)).pathname) });
pyodide.setStdout({ batched: (line) => console.log(line) });
pyodide.setStderr({ batched: (line) => console.error(line) });
pyodide.registerJsModule("_cloudflare_compat_flags", {
  python_request_headers_preserve_commas: true,
  python_workflows_implicit_dependencies: true,
});
pyodide.registerJsModule("_pyodide_entrypoint_helper", {
  patchWaitUntil,
  patch_env_helper: patchEnv,
  doAnImport: async (name) => {
    throw new Error(`No such module "${name}".`);
  },
  cloudflareWorkersModule: {
    get env() {
      return current.env;
    },
    get waitUntil() {
      return (work) => current.ctx.waitUntil(work);
    },
  },
  cloudflareSocketsModule: {},
});

for (const [name, file] of Object.entries(job.sdk)) {
  const target = join("/sdk", name);
  pyodide.FS.mkdirTree(dirname(target));
  pyodide.FS.writeFile(target, readFileSync(file));
}
pyodide.runPython("import sys; sys.path.append('/sdk')");
pyodide.mountNodeFS("/project", job.root);
pyodide.runPython(readFileSync(new URL("calling.py", import.meta.url), "utf8"), {
  globals: pyodide.globals,
});
const load = pyodide.globals.get("load");
const call = pyodide.globals.get("call");
const unload = pyodide.globals.get("unload");

const LEVELS = ["debug", "info", "log", "warn", "error"];
const terminal = Object.fromEntries(LEVELS.map((level) => [level, console[level].bind(console)]));

function loggedValue(value) {
  if (value instanceof pyodide.ffi.PyProxy) return String(value);
  if (value === undefined || Number.isNaN(value)) return null;
  return JSON.parse(JSON.stringify(value) ?? "null");
}

function failure(error) {
  const lines = String(error.message ?? error).trimEnd().split("\n");
  return error.name === "PythonError" ? lines.at(-1) : `${error.name}: ${lines.at(-1)}`;
}

function eventOf(scenario) {
  switch (scenario.handler) {
    case "fetch":
      return { args: [requestOf(scenario.request), undefined, undefined] };
    case "queue": {
      const batch = batchOf(scenario.batch);
      return { args: [batch, undefined, undefined], batch };
    }
    case "tail":
      return { args: [scenario.traces.map(traceItem), undefined, undefined] };
    case "scheduled":
      return { args: [new ScheduledController(scenario.controller), undefined, undefined] };
    default:
      return { args: scenario.args };
  }
}

async function run(scenario) {
  const result = { name: scenario.name, outcome: "ok", logs: [], exceptions: [], calls: [] };
  const ctx = new ExecutionContext();
  Object.assign(current, { ctx, calls: result.calls, outbound: scenario.outbound ?? {} });
  current.env = makeEnv(scenario, result.calls);
  for (const level of LEVELS)
    console[level] = (...args) => result.logs.push([level, args.map(loggedValue)]);
  const fail = (error) => {
    result.outcome = "exception";
    result.exceptions.push(failure(error));
  };
  const { args, batch } = eventOf(scenario);
  let module;
  try {
    const main = join("/project", scenario.main);
    module = load(dirname(main), basename(main, ".py"));
    const answer = await call(module, scenario.handler, ctx, current.env, ...args);
    if (scenario.handler === "fetch") {
      if (!(answer instanceof Response))
        throw new TypeError(
          "Incorrect type for Promise: the Promise did not resolve to 'Response'.",
        );
      result.response = await responseOf(answer);
    } else if (!["queue", "tail", "scheduled"].includes(scenario.handler)) {
      result.returned = await canonical(answer);
    }
  } catch (error) {
    fail(error);
  }
  for (let settled = 0; settled < ctx.background.length; settled += 1)
    await ctx.background[settled].catch(fail);
  if (batch) result.decisions = batch.decisions();
  await new Promise((resolve) => setTimeout(resolve, 0));
  for (const level of LEVELS) console[level] = terminal[level];
  unload(dirname(join("/project", scenario.main)));
  result.calls = await Promise.all(result.calls);
  return result;
}

const results = [];
for (const scenario of job.scenarios) results.push(await run(scenario));
const python = pyodide.runPython("import sys; sys.version.split()[0]");
const [library, missing] = JSON.parse(pyodide.globals.get("library_modules")());
writeFileSync(resultsFile, JSON.stringify({ python, library, missing, results }));
process.exit(0);
