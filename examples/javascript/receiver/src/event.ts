// Validation and cleaning of events: pure functions, bounded work for any input.

const EVENTS_MAX = 500;
const ID_CHARS_MAX = 128;
const DAY_MS = 86_400_000;
const DEPTH_MAX = 16;
const EVENT_NAME = /^[A-Za-z0-9_.:-]+$/;
const EVENT_CHARS_MAX = 64;
const OPTIONAL = ["match_id", "session_id", "platform", "region", "build"];
const KNOWN = new Set(["event", "player_id", "ts", "props", ...OPTIONAL]);
// C0, DEL and C1: they break terminals, logs and TSV, and no game needs them.
const CONTROLS = /[\u0000-\u001f\u007f-\u009f]/g;

/** Error code of a payload that is refused for its size. */
export const TOO_LARGE = "payload_too_large";

/** A refused payload: `error` is a stable code, the message names the field and the reason. */
export class InvalidError extends Error {
  constructor(
    readonly error: string,
    detail: string,
  ) {
    super(detail);
  }
}

type Fields = Record<string, unknown>;

/** The body, unpacked if it is gzip; at most `limit` bytes are. */
export async function unpack(body: Uint8Array, limit: number): Promise<Uint8Array> {
  if (!isGzip(body)) return body;
  let unpacked: Uint8Array;
  try {
    unpacked = await gunzip(body, limit + 1);
  } catch (error) {
    throw new InvalidError("invalid_gzip", `the body is not gzip: ${(error as Error).message}`);
  }
  if (unpacked.length > limit) {
    throw new InvalidError(TOO_LARGE, `more than ${limit} bytes when unpacked`);
  }
  return unpacked;
}

/** The first `limit` bytes of a body, unpacked if it is gzip; a placeholder if that fails. */
export async function excerpt(body: Uint8Array, limit: number): Promise<Uint8Array> {
  if (!isGzip(body)) return body.subarray(0, limit);
  try {
    return (await gunzip(body, limit)).subarray(0, limit);
  } catch {
    return new TextEncoder().encode("(broken gzip)");
  }
}

function isGzip(body: Uint8Array): boolean {
  return body[0] === 0x1f && body[1] === 0x8b; // JSON never begins so
}

/** Unpacks until there are `enough` bytes. */
async function gunzip(body: Uint8Array, enough: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const stream = new Blob([body]).stream().pipeThrough(new DecompressionStream("gzip"));
  for await (const chunk of stream) {
    chunks.push(chunk);
    size += chunk.length;
    if (size >= enough) break;
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** The cleaned events of a request body: one object, or an array of up to 500.
 *
 * One invalid event refuses the whole body: a retry of a partly accepted array would duplicate its
 * valid events.
 */
export function readEvents(body: Uint8Array, nowMs: number): Fields[] {
  const payload = parse(body);
  if (!Array.isArray(payload)) return [readEvent(payload, "", nowMs)];
  if (!payload.length) throw new InvalidError("invalid_event", "the array is empty");
  if (payload.length > EVENTS_MAX) {
    const detail = `${payload.length} events; at most ${EVENTS_MAX} a request`;
    throw new InvalidError("too_many_events", detail);
  }
  return payload.map((item, index) => readEvent(item, `[${index}].`, nowMs));
}

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body), exact);
  } catch (error) {
    throw new InvalidError("invalid_json", `the body is not JSON: ${(error as Error).message}`);
  }
}

/** An integer beyond JavaScript's range (a 64-bit id, say) becomes a string with all its digits. */
function exact(_: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const source = context?.source ?? "";
  return /^-?\d+$/.test(source) ? source : value;
}

function readEvent(item: unknown, where: string, nowMs: number): Fields {
  if (!isObject(item)) {
    throw new InvalidError("invalid_event", `${where || "the event"} must be an object`);
  }
  const event: Fields = {
    event: readName(item.event, where),
    player_id: readText(item.player_id, where, "player_id"),
    ts: readTimestamp(item.ts, where, nowMs),
  };
  for (const field of OPTIONAL) {
    if (item[field] !== undefined && item[field] !== null) {
      event[field] = readText(item[field], where, field);
    }
  }
  const props = item.props ?? {};
  if (!isObject(props)) {
    throw new InvalidError("invalid_event", `${where}props must be an object`);
  }
  const more = Object.fromEntries(Object.entries(item).filter(([name]) => !KNOWN.has(name)));
  event.props = { ...cleanObject(more, where, 1), ...cleanObject(props, where, 1) };
  return event;
}

function readName(value: unknown, where: string): string {
  if (typeof value !== "string" || !value || lengthOf(value) > EVENT_CHARS_MAX) {
    const detail = `${where}event must be 1 to ${EVENT_CHARS_MAX} characters`;
    throw new InvalidError("invalid_event", detail);
  }
  if (!EVENT_NAME.test(value)) {
    const detail = `${where}event may only have letters, digits and _ . : -`;
    throw new InvalidError("invalid_event", detail);
  }
  return value;
}

function readText(value: unknown, where: string, field: string): string {
  if (typeof value !== "string" || !value || lengthOf(value) > ID_CHARS_MAX) {
    const detail = `${where}${field} must be 1 to ${ID_CHARS_MAX} characters`;
    throw new InvalidError("invalid_event", detail);
  }
  const text = cleanText(value);
  if (!text) {
    const detail = `${where}${field} has nothing but control characters`;
    throw new InvalidError("invalid_event", detail);
  }
  return text;
}

function readTimestamp(value: unknown, where: string, nowMs: number): number {
  if (typeof value !== "number" || !Number.isInteger(value)) {
    const detail = `${where}ts must be an integer of milliseconds since 1970`;
    throw new InvalidError("invalid_event", detail);
  }
  if (value < 0 || value > nowMs + DAY_MS) {
    const detail = `${where}ts must be after 1970 and at most a day ahead`;
    throw new InvalidError("invalid_event", detail);
  }
  return value;
}

function cleanObject(value: Fields, where: string, depth: number): Fields {
  const cleaned: Fields = {};
  for (const [key, item] of Object.entries(value)) {
    cleaned[cleanText(key)] = cleanItem(item, where, depth);
  }
  return cleaned;
}

function cleanItem(item: unknown, where: string, depth: number): unknown {
  if (typeof item === "string") return cleanText(item);
  if (typeof item === "number" && !Number.isFinite(item)) {
    throw new InvalidError("invalid_json", `${where}props has a number that is too large`);
  }
  if (item === null || typeof item !== "object") return item;
  if (depth >= DEPTH_MAX) {
    throw new InvalidError("invalid_event", `${where}props is nested deeper than ${DEPTH_MAX}`);
  }
  if (Array.isArray(item)) return item.map((each) => cleanItem(each, where, depth + 1));
  return cleanObject(item as Fields, where, depth + 1);
}

function cleanText(text: string): string {
  // Half of a surrogate pair is replaced: no later stage can encode it.
  return text.toWellFormed().replace(CONTROLS, "");
}

function lengthOf(text: string): number {
  return text.length > ID_CHARS_MAX ? [...text].length : text.length;
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
