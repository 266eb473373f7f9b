// console.* of worker code, in order, as values of JSON: the forms that a Tail Worker receives.

import { currentOrNull } from "./invocation.js";

const { parse: parseJson, stringify } = JSON; // a Worker may replace them
const LEVELS = ["debug", "info", "log", "warn", "error"];

for (const level of LEVELS) {
  const native = console[level].bind(console);
  console[level] = (...args) => {
    const invocation = currentOrNull();
    if (invocation === null) native(...args);
    else invocation.log(level, args.map(shown));
  };
}

/** A plain object or array as JSON, any other value as text; {} for what has no text. */
function shown(value) {
  try {
    switch (typeof value) {
      case "string":
      case "boolean":
        return value;
      case "number":
        return Number.isFinite(value) ? value : null;
      case "undefined":
        return null;
      case "object":
        return value === null ? null : parseJson(isData(value) ? stringify(value) : stringify(String(value)));
      default:
        return typeof value === "symbol" ? {} : String(value);
    }
  } catch {
    return {};
  }
}

function isData(value) {
  if (Array.isArray(value) || typeof value.toJSON === "function") return true;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
