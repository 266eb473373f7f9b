// Requests to the admin endpoints.  A token is asked for once and kept for this tab.

const PREFIX = "/cdn-cgi/edgesim";
const TOKEN = "edgesim-token";

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
}

async function ask(path, options = {}) {
  const send = () => fetch(PREFIX + path, { ...options, headers: headers() });
  let response = await send();
  if (response.status === 403) {
    const token = window.prompt(`${(await response.clone().text()).trim()}\n\nAdmin token:`);
    if (token) {
      sessionStorage.setItem(TOKEN, token);
      response = await send();
    }
  }
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response;
}

export async function get(path) {
  return (await ask(path)).json();
}

// The reply, or null if there is none: for what every page asks in passing, without questions.
export async function glance(path) {
  try {
    const response = await fetch(PREFIX + path, { headers: headers() });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

export async function switchFaults(rules) {
  return (await ask("/faults", { method: "PUT", body: rules.join("\n") })).json();
}

export function download(bucket, key) {
  return ask(`/r2?bucket=${encodeURIComponent(bucket)}&key=${encodeURIComponent(key)}`);
}

export function upload(bucket, key, file) {
  const query = `bucket=${encodeURIComponent(bucket)}&key=${encodeURIComponent(key)}`;
  return ask(`/r2?${query}`, { method: "PUT", body: file });
}

export async function operate(operation, values = {}) {
  const body = JSON.stringify({ operation, arguments: values });
  return (await ask("/operations", { method: "POST", body })).json();
}

export async function sendAgain(id, message = "") {
  return (await ask(`/invocation/again?${new URLSearchParams({ id, message })}`, { method: "POST" })).json();
}

export function fixture(ids) {
  return ask("/fixture", { method: "POST", body: JSON.stringify({ ids }) });
}

export async function sql(query) {
  return (await ask("/sql?format=JSONCompact", { method: "POST", body: query })).json();
}

// Read Server-Sent Events until the signal aborts; fetch, since EventSource sends no headers.
export async function events(path, signal, received) {
  const response = await ask(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (fields.event) received(fields.event, JSON.parse(fields.data), fields.id);
    }
  }
}
