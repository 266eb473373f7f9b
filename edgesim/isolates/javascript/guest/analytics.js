// The Analytics Engine binding of worker code.
//
// Values are converted here, as workerd converts them, and of the wrong type they are refused at
// once.  The platform's side checks the limits: workerd reports those in the trace only.

import { current } from "./invocation.js";
import { Error, String, TypeError, isA, isArray, isView, list, listOf } from "./safe.js";

const { ArrayBuffer, Number } = globalThis;
const POINTS_MAX = 250;

export class AnalyticsEngine {
  #name;

  constructor(name) {
    this.#name = name;
  }

  writeDataPoint(event = undefined) {
    const point = converted(event);
    const invocation = current();
    if (++invocation.dataPoints > POINTS_MAX) throw new Error("Analytics Engine write limit exceeded.");
    invocation.waitUntil(send(invocation, this.#name, point));
  }
}

/** Sends a point; the invocation lasts until it is safe, and does not fail if it cannot be kept. */
async function send(invocation, name, point) {
  try {
    await invocation.call(name, "writeDataPoint", listOf(point));
  } catch {
    // The platform has logged it.
  }
}

function converted(event) {
  const point = { __proto__: null };
  if (event === undefined || event === null) return point;
  if (typeof event !== "object" && typeof event !== "function") {
    throw new TypeError(
      "Failed to execute 'writeDataPoint' on 'AnalyticsEngine': parameter 1 is not of type " +
        "'AnalyticsEngineEvent'.",
    );
  }
  take(point, "indexes", event.indexes, blob);
  take(point, "doubles", event.doubles, double);
  take(point, "blobs", event.blobs, blob);
  return point;
}

function take(point, field, items, convert) {
  if (items === undefined) return;
  if (!isArray(items)) {
    throw new TypeError(
      `Incorrect type for the '${field}' field on 'AnalyticsEngineEvent': the provided value is ` +
        "not of type 'Array'.",
    );
  }
  const copy = list();
  for (let at = 0; at < items.length; at++) copy[at] = convert(items[at]);
  point[field] = copy;
}

function blob(value) {
  if (value === undefined || value === null || isView(value) || isA(ArrayBuffer, value)) {
    return value ?? null;
  }
  if (typeof value === "symbol") throw new TypeError("Cannot convert a Symbol value to a string");
  return String(value);
}

function double(value) {
  if (typeof value === "bigint") throw new TypeError("Cannot convert a BigInt value to a number");
  return Number(value);
}
