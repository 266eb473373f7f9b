// The receiver's job in JavaScript: check one event or an array, log each, respond.
export default {
  async fetch(request, env) {
    if (request.method === "GET") return env.TAIL.fetch(request);
    const payload = await request.json();
    for (const event of Array.isArray(payload) ? payload : [payload]) {
      if (typeof event.event !== "string" || !Number.isInteger(event.ts)) {
        return new Response("invalid event", { status: 400 });
      }
      console.log("PIPE_ME", JSON.stringify(event));
    }
    return new Response("OK");
  },
};
