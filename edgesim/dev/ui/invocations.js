// Invocations, newest first, live: filters, and one invocation with its request, logs and exception.

import { events, fixture, get } from "./api.js";
import { button, clock, h, pretty, save } from "./dom.js";

const SHOWN_MAX = 300;
const WAITING_MAX = 300;

export async function invocations(root, [worker = ""], { signal, say }) {
  const search = h("input", { id: "text", type: "search", placeholder: "id, URL, message" });
  const status = h("select", { id: "status" }, ["all", "ok", "failed"].map((each) => h("option", {}, each)));
  const name = h("input", { id: "worker", value: worker, placeholder: "all Workers" });
  const list = h("div", { id: "invocations", "aria-live": "off" });
  const record = async () => {
    try {
      const response = await fixture([...list.querySelectorAll("[data-id]")].map((each) => each.dataset.id));
      save(await response.blob(), "events.ndjson");
      const left = Object.entries(JSON.parse(response.headers.get("edgesim-left-out")));
      say([`recorded ${response.headers.get("edgesim-requests")} requests`, ...left.map(([reason, count]) => `${count} left out: ${reason}`)].join("; "));
    } catch (error) {
      say(error.message, true);
    }
  };
  root.append(
    h("h2", {}, "Invocations"),
    h("div", { class: "bar" },
      h("label", { for: "worker" }, "Worker", name),
      h("label", { for: "status" }, "Outcome", status),
      h("label", { for: "text" }, "Text", search),
      button("Record these as a fixture", record)),
    list,
  );
  let waiting = [];
  const wanted = (item) => (!name.value || item.scriptName === name.value)
    && (status.value === "all" || (item.outcome === "ok") === (status.value === "ok"))
    && (!search.value || JSON.stringify(item).includes(search.value) || texts(item).some((each) => each.includes(search.value)));
  const reload = async () => {
    const query = new URLSearchParams({ worker: name.value, text: search.value, status: status.value, limit: SHOWN_MAX });
    const found = await get(`/invocations?${query}`);
    waiting = [];
    list.replaceChildren(...found.invocations.map(row));
    if (!list.children.length) list.append(h("p", { class: "soft", id: "none" }, "No invocation yet. Send a request."));
  };
  for (const input of [name, status, search]) input.addEventListener("change", reload);
  await reload();
  const draw = () => {
    if (signal.aborted) return;
    if (waiting.length) {
      document.getElementById("none")?.remove();
      list.prepend(...waiting.reverse().map(row));
      waiting = [];
      while (list.children.length > SHOWN_MAX) list.lastElementChild.remove();
    }
    setTimeout(draw, 250);
  };
  draw();
  await events("/events", signal, (kind, data, id) => {
    if (kind === "dropped") say(`${data} invocations were not shown: too many at once`, true);
    else if (wanted(data)) {
      waiting.push({ ...data, id });
      if (waiting.length > WAITING_MAX) waiting.shift();
    }
  });
  say("the project has stopped", true);
}

export function texts(item) {
  const logs = item.logs.map((entry) => entry.message.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" "));
  return [...logs, ...item.exceptions.map((each) => `${each.name}: ${each.message}`)];
}

function row(item) {
  return h("details", { class: "panel invocation", "data-outcome": item.outcome, "data-id": item.id },
    h("summary", {},
      h("span", { class: "soft" }, clock(item.eventTimestamp)), " ",
      h("b", {}, item.scriptName), " ", happened(item), " ",
      h("span", { class: item.outcome === "ok" ? "good" : "bad" }, item.outcome), " ",
      h("span", { class: "soft" }, `${item.wallTime} ms`)),
    h("p", {}, h("a", { href: `#/invocation/${item.id}` }, "Open, to send it again")),
    lines(item),
    h("details", {}, h("summary", {}, "Event"), h("pre", {}, pretty(item.event))));
}

// Exceptions and console lines.
export function lines(item) {
  return [
    item.exceptions.map((each) => h("pre", { class: "bad" }, each.stack || `${each.name}: ${each.message}`)),
    item.logs.map((entry, index) => h("pre", { class: entry.level === "error" ? "bad" : entry.level === "warn" ? "warn" : "" }, `${entry.level.padEnd(5)} ${texts(item)[index]}`)),
  ];
}

export function happened(item) {
  const event = item.event ?? {};
  if (event.request) return `${event.request.method} ${event.request.url} ${event.response?.status ?? ""}`;
  if (event.queue) return `queue ${event.queue}, ${event.batchSize} messages`;
  if (event.cron) return `scheduled ${event.cron}`;
  if (event.rpcMethod) return `rpc ${event.rpcMethod}`;
  return `tail, ${event.consumedEvents?.length ?? 0} traces`;
}
