// console.* of worker code, in order, as values of JSON: the forms that a Tail Worker receives.

import { currentOrNull } from "./invocation.js";
import {
  OBJECT, String, apply, codeAt, getPrototypeOf, isArray, isFinite, stringify,
} from "./safe.js";

const LEVELS = ["debug", "info", "log", "warn", "error"];
const DEPTH_MAX = 256; // nesting of a value that the platform reads
const QUOTE = 34, BACKSLASH = 92, OPENING = [91, 123], CLOSING = [93, 125];
const NOTHING = "{}"; // for what has no text

for (const level of LEVELS) {
  const native = console[level];
  console[level] = (...args) => {
    const invocation = currentOrNull();
    if (invocation === null) {
      apply(native, console, args);
      return;
    }
    let message = "";
    for (let at = 0; at < args.length; at++) message += (at ? "," : "") + shown(args[at]);
    invocation.log(level, `[${message}]`);
  };
}

/** JSON of a value: a plain object or array as it is, any other value as text. */
function shown(value) {
  try {
    switch (typeof value) {
      case "string":
        return stringify(value);
      case "boolean":
        return String(value);
      case "number":
        return isFinite(value) ? String(value) : "null";
      case "undefined":
        return "null";
      case "symbol":
        return NOTHING;
      case "object":
        return value === null ? "null" : shownObject(value);
      default:
        return stringify(String(value));
    }
  } catch {
    return NOTHING;
  }
}

function shownObject(value) {
  const text = isData(value) ? stringify(value) : undefined;
  return text === undefined || isDeep(text) ? stringify(String(value)) : text;
}

function isData(value) {
  if (isArray(value) || typeof value.toJSON === "function") return true;
  const prototype = getPrototypeOf(value);
  return prototype === OBJECT || prototype === null;
}

/** True if a text of JSON is nested deeper than DEPTH_MAX. */
function isDeep(text) {
  if (text.length < 2 * DEPTH_MAX) return false;
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const code = codeAt(text, at);
    if (code === QUOTE) quoted = !quoted;
    else if (quoted) at += code === BACKSLASH ? 1 : 0;
    else if (code === OPENING[0] || code === OPENING[1]) {
      if (++depth > DEPTH_MAX) return true;
    } else if (code === CLOSING[0] || code === CLOSING[1]) depth--;
  }
  return false;
}
