// Worker, equivalent to worker.py: an echo, and Responses and fetches by description.
const utf8 = (base64) => new TextDecoder().decode(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));

async function echo(request) {
  const seen = {};
  for (const [name, value] of request.headers) if (name.startsWith("x-") && name !== "x-forwarded-proto") seen[name] = value;
  return Response.json({ method: request.method, url: request.url, headers: seen, redirect: request.redirect, body: await request.text() });
}

function bodyOf(spec) {
  if (spec.bytes !== undefined) return Uint8Array.from(spec.bytes);
  return spec.body === undefined ? null : spec.body;
}

function respond(spec) {
  const init = {};
  if (spec.status !== undefined) init.status = spec.status;
  if (spec.statusText !== undefined) init.statusText = spec.statusText;
  if (spec.headers !== undefined) init.headers = spec.headers;
  return new Response(bodyOf(spec), init);
}

async function form(request) {
  const entries = [];
  for (const [name, value] of await request.formData()) {
    entries.push(typeof value === "string" ? [name, value] : [name, value.name, value.type, await value.text()]);
  }
  return Response.json(entries);
}

async function ask(spec, env) {
  const options = {};
  for (const key of ["method", "headers", "body", "redirect"]) if (spec[key] !== undefined) options[key] = spec[key];
  const url = spec.url.replace("ORIGIN", env.ORIGIN);
  const answer = spec.binding ? await env[spec.binding].fetch(url, options) : await fetch(url, options);
  if (spec.pass === "answer") return answer;
  if (spec.pass === "body") return new Response(answer.body, { status: answer.status, headers: { "x-passed": "body" } });
  if (spec.pass === "init") return new Response(answer.body, answer);
  const shown = [answer.status, answer.redirected, answer.url.replace(env.ORIGIN, "ORIGIN"), answer.statusText];
  const headers = (spec.show || []).map((name) => answer.headers.get(name));
  return Response.json([...shown, headers, answer.body === null, await answer.text()]);
}

export default {
  async fetch(request, env) {
    const described = request.headers.get("x-spec");
    const path = new URL(request.url).pathname;
    if (path === "/form") return form(request).catch((error) => new Response(error.name, { status: 400 }));
    if (described === null) {
      if (path === "/throws") throw new Error("on purpose");
      if (path.startsWith("/redirect/")) return new Response("", { status: Number(path.slice(10)), headers: { location: "/echo" } });
      return echo(request);
    }
    const spec = JSON.parse(utf8(described));
    try {
      return spec.url === undefined ? respond(spec) : await ask(spec, env);
    } catch (error) {
      return new Response("raised", { status: 599 });
    }
  },
};
