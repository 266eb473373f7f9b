// Values between a Worker and the platform, as JSON with tags: {"$": kind, "v": value}.
// edgesim/isolates/javascript/values.py is the platform's half.

const { parse: parseJson } = JSON; // a Worker may replace them
const TAG = "$";

/** Returns a JSON-safe copy of `value`; a DataCloneError for what cannot cross. */
export function pack(value) {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : tagged("number", String(value));
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
  if (Array.isArray(value)) return Array.from(value, pack);
  if (value instanceof Date) return tagged("date", value.getTime());
  if (value instanceof ArrayBuffer) return tagged("bytes", base64(new Uint8Array(value)));
  if (ArrayBuffer.isView(value)) {
    return tagged("bytes", base64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)));
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw uncloneable(value);
  const copy = {};
  for (const [name, each] of Object.entries(value)) if (each !== undefined) copy[name] = pack(each);
  return TAG in copy ? tagged("object", copy) : copy;
}

/** Returns the value that `text`, JSON written by the platform, stands for. */
export function parse(text) {
  const value = parseJson(text);
  return text.includes(`"${TAG}":`) ? unpack(value) : value;
}

function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (value === null || typeof value !== "object") return value;
  if (TAG in value) {
    switch (value[TAG]) {
      case "date":
        return new Date(value.v);
      case "bytes":
        return Uint8Array.from(atob(value.v), (each) => each.charCodeAt(0)).buffer;
      case "number":
        return Number(value.v);
      case "object":
        return unpackFields(value.v);
    }
  }
  return unpackFields(value);
}

function unpackFields(value) {
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, unpack(each)]));
}

function tagged(kind, value) {
  return { [TAG]: kind, v: value };
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

function uncloneable(value) {
  const shown = typeof value === "object" ? `#<${value.constructor?.name ?? "Object"}>` : String(value);
  return new DOMException(
    `Could not serialize object of type "${shown}". edgesim passes JSON values, dates and bytes ` +
      "between Workers.",
    "DataCloneError",
  );
}
