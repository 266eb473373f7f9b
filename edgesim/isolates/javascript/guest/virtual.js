// Virtual time: the clock, the randomness and the timers of a replay are the platform's.
//
// The platform waits for an isolate until that has said how many calls it has made and how many of
// them are over.  So it reads every body whole before anybody else does, and says it once
// nothing is left to run.

import { current, currentOrNull } from "./invocation.js";
import {
  Response, byteLength, bytesOfResponse, define, getHeader, headersOfResponse, isRedirected, split,
  startTimer, urlOfResponse,
} from "./safe.js";
import { installTimers } from "./timers.js";

const NOW = "x-edgesim-now";
const RANDOM_BYTES_MAX = 65_536;

/** Sets the clock of an invocation from the header of a reply. */
export function setClock(invocation, response) {
  const times = getHeader(headersOfResponse(response), NOW);
  if (times === null) return;
  const { 0: now, 1: steady } = split(times, ",");
  invocation.now = +now;
  invocation.steady = +steady;
}

/** Calls `note` once everything that can run in this isolate now has run. */
export function whenIdle(note) {
  startTimer(note, 0);
}

/** A copy of a response with its body in memory. */
export async function whole(response) {
  const bytes = await bytesOfResponse(response);
  const copy = new Response(byteLength(bytes) ? bytes : null, response);
  define(copy, "url", urlOfResponse(response), false);
  define(copy, "redirected", isRedirected(response), false);
  return copy;
}

/** Replaces the sources of time and chance; `sleep` waits until a time of the steady clock. */
export function install(sleep) {
  const now = () => Math.floor(currentOrNull()?.now ?? 0);
  const NativeDate = Date;
  globalThis.Date = new Proxy(NativeDate, {
    apply: (target) => new target(now()).toString(),
    construct: (target, args, type) => Reflect.construct(target, args.length ? args : [now()], type),
    get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
  });
  NativeDate.prototype.constructor = globalThis.Date;
  installFormats(now);
  performance.now = now;
  const mark = performance.mark.bind(performance);
  performance.mark = (name, options) => mark(name, { startTime: now(), ...options });
  globalThis.File = new Proxy(File, {
    construct: (target, [bits, name, options], type) =>
      Reflect.construct(target, [bits, name, { lastModified: now(), ...options }], type),
  });
  installChance();
  installTimers(sleep, (error) => current().fail(error));
}

/** Intl.DateTimeFormat without a date formats the present. */
function installFormats(now) {
  const { prototype } = Intl.DateTimeFormat;
  const { get } = Object.getOwnPropertyDescriptor(prototype, "format");
  Object.defineProperty(prototype, "format", {
    configurable: true,
    get() {
      const format = get.call(this);
      return (date) => format(date === undefined ? now() : date);
    },
  });
  const { formatToParts } = prototype;
  prototype.formatToParts = function (date) {
    return formatToParts.call(this, date === undefined ? now() : date);
  };
}

function installChance() {
  Math.random = () => current().random();
  crypto.getRandomValues = (array) => {
    if (!ArrayBuffer.isView(array) || array instanceof DataView || /^Float/.test(array[Symbol.toStringTag])) {
      throw new DOMException("getRandomValues() takes a typed array of integers.", "TypeMismatchError");
    }
    if (array.byteLength > RANDOM_BYTES_MAX) {
      throw new DOMException(`getRandomValues() fills at most ${RANDOM_BYTES_MAX} bytes.`, "QuotaExceededError");
    }
    const { random } = current();
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let at = 0; at < bytes.length; at++) bytes[at] = random() * 256;
    return array;
  };
  crypto.randomUUID = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  };
}

/** A source of numbers in [0, 1) by a seed of 32 bits (mulberry32). */
export function randomness(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
