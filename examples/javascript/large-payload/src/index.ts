// The large-payload Worker: sends validated events that are too large for the receiver's log.

interface Env {
  PIPELINE: { send(records: object[]): Promise<void> };
}

const SEND_BYTES_MAX = 4_000_000;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    if (request.method !== "POST") {
      return new Response("events come by POST\n", { status: 405, headers: { allow: "POST" } });
    }
    let events: unknown;
    try {
      events = await request.json();
    } catch (error) {
      return new Response(`not JSON: ${(error as Error).message}\n`, { status: 400 });
    }
    if (!Array.isArray(events) || !events.every(isObject)) {
      return new Response("not a JSON array of objects\n", { status: 400 });
    }
    for (const chunk of split(events)) await env.PIPELINE.send(chunk);
    return new Response("OK");
  },
};

/** Lists of at most SEND_BYTES_MAX bytes of JSON; a larger event gets its own. */
function split(events: object[]): object[][] {
  const chunks: object[][] = [];
  let size = SEND_BYTES_MAX + 1;
  for (const event of events) {
    const bytes = new TextEncoder().encode(JSON.stringify(event)).length;
    if (size + bytes > SEND_BYTES_MAX) {
      chunks.push([]);
      size = 0;
    }
    chunks[chunks.length - 1].push(event);
    size += bytes;
  }
  return chunks;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
