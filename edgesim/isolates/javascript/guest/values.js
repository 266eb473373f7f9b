// Values between a Worker and the platform, as JSON with tags: {"$": kind, "v": value}.
// edgesim/isolates/javascript/values.py is the platform's half.

import {
  ArrayBuffer, DOMException, Date, OBJECT, String, Uint8Array, atob, btoa, codeAt, define, entries,
  getPrototypeOf, includes, isA, isArray, isFinite, isView, latin1, list, milliseconds, parseJson,
} from "./safe.js";

const TAG = "$";

/** Returns a JSON-safe copy of `value`; a DataCloneError for what cannot cross. */
export function pack(value) {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return isFinite(value) ? value : tagged("number", String(value));
    case "undefined":
      return null;
    case "bigint":
      return tagged("bigint", String(value));
    case "object":
      return value === null ? null : packObject(value);
    default:
      throw uncloneable(value);
  }
}

function packObject(value) {
  if (isArray(value)) {
    const copy = list();
    for (let at = 0; at < value.length; at++) copy[at] = pack(value[at]);
    return copy;
  }
  if (isA(Date, value)) return tagged("date", milliseconds(value));
  if (isA(ArrayBuffer, value)) return tagged("bytes", btoa(latin1(new Uint8Array(value))));
  if (isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return tagged("bytes", btoa(latin1(bytes)));
  }
  const prototype = getPrototypeOf(value);
  if (prototype !== OBJECT && prototype !== null) throw uncloneable(value);
  const copy = { __proto__: null };
  const fields = entries(value);
  for (let at = 0; at < fields.length; at++) {
    const { 0: name, 1: each } = fields[at];
    if (each !== undefined) copy[name] = pack(each);
  }
  return TAG in copy ? tagged("object", copy) : copy;
}

/** Returns the value that `text`, JSON written by the platform, stands for. */
export function parse(text) {
  const value = parseJson(text);
  return includes(text, `"${TAG}":`) ? unpack(value) : value;
}

function unpack(value) {
  if (value === null || typeof value !== "object") return value;
  if (isArray(value)) {
    for (let at = 0; at < value.length; at++) define(value, at, unpack(value[at]));
    return value;
  }
  // The platform's JSON has own properties only.
  const fields = entries(value);
  const { 0: first, 1: second } = fields;
  if (fields.length === 2 && first[0] === TAG) {
    switch (first[1]) {
      case "date":
        return new Date(second[1]);
      case "bytes":
        return bytesOf(atob(second[1]));
      case "number":
        return +second[1];
      case "object":
        return unpackFields(entries(second[1]));
    }
  }
  return unpackFields(fields);
}

function unpackFields(fields) {
  const found = {};
  for (let at = 0; at < fields.length; at++) define(found, fields[at][0], unpack(fields[at][1]));
  return found;
}

function bytesOf(text) {
  const buffer = new ArrayBuffer(text.length);
  const bytes = new Uint8Array(buffer);
  for (let at = 0; at < text.length; at++) bytes[at] = codeAt(text, at);
  return buffer;
}

function tagged(kind, value) {
  return { __proto__: null, [TAG]: kind, v: value };
}

function uncloneable(value) {
  const shown = typeof value === "object" ? `#<${value.constructor?.name ?? "Object"}>` : String(value);
  return new DOMException(
    `Could not serialize object of type "${shown}". edgesim passes JSON values, dates and bytes ` +
      "between Workers.",
    "DataCloneError",
  );
}
