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

const failing = async (call) => {
  try {
    await call();
    return "nothing";
  } catch (error) {
    return error.name;
  }
};

// Named operations on the web classes; worker.py has the same.
const operations = {
  async bodies() {
    const form = new FormData();
    form.append("a", "1");
    const found = [];
    for (const body of [null, "text", new Blob(["blob"], { type: "text/x" }), new Uint8Array([65, 66]), new ArrayBuffer(2)]) {
      const response = new Response(body);
      found.push([response.headers.get("content-type"), response.body === null, await response.text()]);
    }
    const posted = new Response(form);
    found.push([posted.headers.get("content-type").split(";")[0], (await posted.formData()).get("a")]);
    return found;
  },
  async reading_twice() {
    const response = new Response("abc");
    const before = response.bodyUsed;
    const copy = response.clone();
    const text = await response.text();
    return [before, text, response.bodyUsed, copy.bodyUsed, await copy.text(), await failing(() => response.text()), await failing(() => response.clone())];
  },
  async tee() {
    const [one, two] = new Response("abc").body.tee();
    return [await new Response(one).text(), await new Response(two).text()];
  },
  async reading_nothing() {
    const response = new Response(null);
    return [await response.text(), response.bodyUsed, await response.text(), await failing(() => new Response("").json())];
  },
  async json() {
    const response = new Response('{"a": [1, 2.5, null]}');
    return [await response.json(), await failing(() => new Response("{").json()), await failing(() => new Response("\ufeff[]").json())];
  },
  async statuses() {
    const made = (status) => failing(() => new Response(null, { status }));
    return [await made(101), await made(199), await made(200), await made(599), await made(600), await made(0)];
  },
  async redirects() {
    const made = (...given) => failing(() => Response.redirect(...given));
    const one = Response.redirect("http://x.example/a b", 303);
    return [one.status, one.headers.get("location"), Response.redirect("http://x.example").status, await made("http://x.example/", 200), await made("/relative")];
  },
  async header_lists() {
    const headers = new Headers([["B", "2"], ["a", "1"], ["b", "3"], ["Set-Cookie", "x=1"], ["set-cookie", "y=2"]]);
    const before = [...headers];
    headers.delete("B");
    headers.append("a", " 4 ");
    headers.set("C", "5");
    return [before, [...headers.keys()], [...headers.values()], headers.get("set-cookie"), headers.getSetCookie(), headers.has("SET-COOKIE"), headers.get("none")];
  },
  async header_errors() {
    const headers = new Headers();
    return [await failing(() => headers.append("a b", "1")), await failing(() => headers.set("a", "1\n2")), await failing(() => headers.get("ä")), await failing(() => new Headers([["a"]]))];
  },
  async headers_are_copies() {
    const headers = new Headers({ a: "1" });
    const response = new Response("", { headers });
    headers.set("a", "2");
    const copy = response.clone();
    copy.headers.set("a", "3");
    return [response.headers.get("a"), copy.headers.get("a")];
  },
  async requests() {
    const request = new Request("http://x.example/a/../b?c#d", { method: "post", body: "abc", headers: { "X-A": "1" } });
    const copy = new Request(request, { headers: { "x-b": "2" } });
    return [request.method, request.url, request.bodyUsed, copy.method, copy.headers.get("x-a"), copy.headers.get("x-b"), await copy.text()];
  },
  async request_errors() {
    const made = (...given) => failing(() => new Request(...given));
    return [
      await made("/relative"), await made("http://x.example/", { method: "A B" }), await made("http://x.example/", { method: "GET", body: "x" }),
      await made("http://x.example/", { method: "HEAD", body: "x" }), await made("http://x.example/", { redirect: "error" }),
    ];
  },
  async methods() {
    const method = (name) => new Request("http://x.example/", { method: name }).method;
    return [method("get"), method("delete"), method("PATCH"), method("options")];
  },
  async blobs() {
    const blob = new Blob(["ab", new Uint8Array([99]), new Blob(["d"])], { type: "Text/X" });
    const part = blob.slice(1, -1, "text/y");
    return [blob.size, blob.type, await blob.text(), part.size, part.type, await part.text(), await blob.slice(-2).text()];
  },
  async forms() {
    const form = new FormData();
    form.append("a", "1");
    form.append("a", "2");
    form.set("b", "3");
    form.append("f", new File(["file"], "x.txt", { type: "text/x" }));
    const file = form.get("f");
    form.delete("b");
    return [form.get("a"), form.getAll("a"), form.has("b"), form.get("b"), [...form.keys()], file.name, file.type, await file.text()];
  },
};

export default {
  async fetch(request, env) {
    const described = request.headers.get("x-spec");
    const path = new URL(request.url).pathname;
    if (path.startsWith("/operation/")) return Response.json(await operations[path.slice(11)]());
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
