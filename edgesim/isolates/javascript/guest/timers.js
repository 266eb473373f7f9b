// Timers of virtual time: the platform wakes them. The globals, and what node:timers exports.
//
// It imports nothing: modules of worker code can import it, by way of node:timers.

const pending = new Map();
let count = 0;
let sleep = null;
let fail = null;

/** A timer as Node returns it; its number where a number is wanted. */
class Timeout {
  #id;

  constructor(id) {
    this.#id = id;
  }

  ref() {
    return this;
  }

  unref() {
    return this;
  }

  hasRef() {
    return true;
  }

  refresh() {
    pending.get(this.#id)?.();
    return this;
  }

  close() {
    clear(this);
    return this;
  }

  [Symbol.toPrimitive]() {
    return this.#id;
  }

  [Symbol.dispose]() {
    clear(this);
  }
}

function start(repeats, callback, ms, args) {
  if (typeof callback !== "function") {
    throw new TypeError("Failed to execute 'setTimeout': parameter 1 is not of type 'Function'.");
  }
  const id = ++count;
  let begun = 0;
  const run = async () => {
    const mine = ++begun; // refresh() begins anew
    do {
      await sleep(Math.max(Number(ms) || 0, repeats ? 1 : 0));
      if (begun !== mine || !pending.has(id)) return;
      if (!repeats) pending.delete(id);
      try {
        callback(...args);
      } catch (error) {
        fail(error);
      }
    } while (pending.has(id));
  };
  pending.set(id, run);
  run();
  return id;
}

function clear(timer) {
  pending.delete(Number(timer));
}

/** The functions that node:timers exports. */
export const timers = {
  setTimeout: (callback, ms, ...args) => new Timeout(start(false, callback, ms, args)),
  setInterval: (callback, ms, ...args) => new Timeout(start(true, callback, ms, args)),
  setImmediate: globalThis.setImmediate,
  clearTimeout: clear,
  clearInterval: clear,
  clearImmediate: globalThis.clearImmediate,
};

/** Waits; rejects as soon as `signal` is aborted. */
export async function wait(ms, signal) {
  signal?.throwIfAborted();
  const slept = sleep(Number(ms) || 0);
  if (!signal) return slept;
  const aborted = new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  return Promise.race([slept, aborted]);
}

/** Replaces the global timers; `asleep` waits in virtual time, `failing` records an exception. */
export function installTimers(asleep, failing) {
  sleep = asleep;
  fail = failing;
  const isNode = globalThis.Cloudflare?.compatibilityFlags?.enable_nodejs_global_timers;
  const number = (make) => (callback, ms, ...args) => Number(make(callback, ms, ...args));
  globalThis.setTimeout = isNode ? timers.setTimeout : number(timers.setTimeout);
  globalThis.setInterval = isNode ? timers.setInterval : number(timers.setInterval);
  globalThis.clearTimeout = globalThis.clearInterval = clear;
  scheduler.wait = (ms, options) => wait(ms, options?.signal);
  AbortSignal.timeout = (ms) => {
    const controller = new AbortController();
    const reason = new DOMException("The operation was aborted due to timeout", "TimeoutError");
    start(false, () => controller.abort(reason), ms, []);
    return controller.signal;
  };
}
