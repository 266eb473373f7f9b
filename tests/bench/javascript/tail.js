// Parses the logged events, as the Tail Worker does, and counts them.
let count = 0;

export default {
  tail(traces) {
    for (const trace of traces) {
      for (const log of trace.logs) {
        const message = Array.isArray(log.message) ? log.message : JSON.parse(log.message);
        const at = message.indexOf("PIPE_ME"); // wrangler dev puts the Worker's name first
        if (at >= 0 && JSON.parse(message[at + 1]).event) count += 1;
      }
    }
  },
  fetch() {
    return new Response(String(count));
  },
};
