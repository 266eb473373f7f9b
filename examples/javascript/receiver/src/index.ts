// The receiver: validates events, logs them as `PIPE_ME <json>` and responds.
//
// The hot path makes no outgoing request. An invalid payload is logged as `PIPE_ERR <json>` with the
// raw body and its client. Events that exceed the trace's log budget are sent to the large-payload
// Worker after the response.

import { corsHeaders, preflightHeaders } from "./cors";
import { excerpt, InvalidError, readEvents, TOO_LARGE, unpack } from "./event";

interface Env {
  ALLOWED_ORIGINS: string;
  BODY_BYTES_MAX: string;
  LOG_BYTES_MAX: string;
  LARGE_PAYLOAD: { fetch(url: string, init: RequestInit): Promise<Response> };
}

interface Context {
  waitUntil(work: Promise<unknown>): void;
}

const RAW_CHARS_MAX = 8192;
const CLIENT_CHARS_MAX = 512;
/** Trace bytes of a log line beyond its JSON: the log record and the PIPE_ME mark. */
const LINE_OVERHEAD_BYTES = 96;

export default {
  async fetch(request: Request, env: Env, ctx: Context): Promise<Response> {
    const headers = corsHeaders(env.ALLOWED_ORIGINS, request.headers.get("origin") ?? "");
    const { method } = request;
    const path = new URL(request.url).pathname;
    if (method === "POST" && path === "/") return receive(request, env, ctx, headers);
    if (path !== "/" && path !== "/health") {
      return refuse(404, "not_found", "events go to POST /", headers);
    }
    if (method === "OPTIONS") {
      return new Response(null, { status: 204, headers: preflightHeaders(headers) });
    }
    if (path === "/") {
      const allow = { ...headers, allow: "OPTIONS, POST" };
      return refuse(405, "method_not_allowed", "events go to POST /", allow);
    }
    if (method === "GET" || method === "HEAD") return new Response("OK", { headers });
    const allow = { ...headers, allow: "GET, HEAD, OPTIONS" };
    return refuse(405, "method_not_allowed", "ask GET /health", allow);
  },
};

async function receive(
  request: Request,
  env: Env,
  ctx: Context,
  headers: Record<string, string>,
): Promise<Response> {
  const limit = Number(env.BODY_BYTES_MAX);
  let body = new Uint8Array();
  let lines: string[];
  let fits: boolean;
  try {
    checkSize(Number(request.headers.get("content-length") ?? 0), limit);
    body = new Uint8Array(await request.arrayBuffer());
    checkSize(body.length, limit);
    body = await unpack(body, limit);
    lines = readEvents(body, Date.now()).map((event) => JSON.stringify(event));
    fits = logBytes(request, lines) <= Number(env.LOG_BYTES_MAX);
    // An event's encoded form may be longer than the received one.
    if (!fits) for (const line of lines) checkSize(bytesOf(line), limit);
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    await report(request, body, error);
    return refuse(error.error === TOO_LARGE ? 413 : 400, error.error, error.message, headers);
  }
  if (fits) for (const line of lines) console.log("PIPE_ME", line);
  else ctx.waitUntil(handOver(env, `[${lines.join(",")}]`));
  return new Response("OK", { headers });
}

async function handOver(env: Env, body: string): Promise<void> {
  const headers = { "content-type": "application/json" };
  const init = { method: "POST", headers, body };
  const answer = await env.LARGE_PAYLOAD.fetch("http://large-payload/", init);
  if (!answer.ok) {
    throw new Error(`large-payload answered ${answer.status}: ${await answer.text()}`);
  }
}

function checkSize(size: number, limit: number): void {
  if (size > limit) throw new InvalidError(TOO_LARGE, `${size} bytes; at most ${limit}`);
}

/** Trace bytes of the lines, the request's URL and its headers. */
function logBytes(request: Request, lines: string[]): number {
  let size = request.url.length;
  for (const [name, value] of request.headers) size += name.length + value.length;
  for (const line of lines) size += LINE_OVERHEAD_BYTES + bytesOf(JSON.stringify(line));
  return size;
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

function refuse(
  status: number,
  error: string,
  detail: string,
  headers: Record<string, string>,
): Response {
  return Response.json({ error, detail }, { status, headers });
}

/** Logs one PIPE_ERR line, which the Tail Worker sends to the errors Pipeline. */
async function report(request: Request, body: Uint8Array, invalid: InvalidError): Promise<void> {
  const client = (name: string) => (request.headers.get(name) ?? "").slice(0, CLIENT_CHARS_MAX);
  const record = {
    received_at: Date.now(),
    worker: "receiver",
    reason: invalid.error,
    detail: invalid.message,
    raw: new TextDecoder().decode(await excerpt(body, RAW_CHARS_MAX)),
    ip: client("cf-connecting-ip"),
    user_agent: client("user-agent"),
    country: client("cf-ipcountry"),
  };
  console.log("PIPE_ERR", JSON.stringify(record));
}
