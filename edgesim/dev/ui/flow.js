// The pipeline as a picture: a card for each node in columns, and the way of the events between.

import { get, operate } from "./api.js";
import { every } from "./app.js";
import { button, bytes, h, number, svg } from "./dom.js";

const PAGE_OF = { worker: "invocations", pipeline: "flow", stream: "flow", bucket: "r2", queue: "queues", namespace: "flow", dataset: "flow", database: "sql" };

export async function flow(root, words, { signal, say }) {
  const picture = h("div", { class: "flow" });
  root.append(
    h("h2", {}, "Flow"),
    h("div", { class: "bar" }, button("End windows and deliver everything", async () => {
      say("draining");
      const response = await fetch("/cdn-cgi/edgesim/drain?timeout=60", { method: "POST" });
      say(response.ok ? "drained" : "not drained in time", !response.ok);
    })),
    picture,
  );
  let drawn = "";
  let before = null;
  await every(1000, signal, async () => {
    const seen = await get("/flow");
    const shape = JSON.stringify(seen.graph);
    if (shape !== drawn) {
      picture.replaceChildren(columnsOf(seen.graph));
      drawn = shape;
    }
    for (const node of seen.graph.nodes) update(picture, node, seen);
    picture.querySelector("svg")?.remove();
    picture.prepend(lines(picture, seen.graph, busyNodes(seen, before)));
    before = seen;
  });
}

const idOf = (node) => `${node.kind}:${node.name}`;

function columnsOf(graph) {
  return h("div", { class: "columns" },
    layout(graph).map((nodes) => h("div", { class: "column" }, nodes.map(card))));
}

// The nodes whose figures have changed since the last look.
function busyNodes(seen, before) {
  if (before === null) return new Set();
  const figures = (node, state) => JSON.stringify(figuresOf(node, { ...state, now: 0 })[0]);
  return new Set(seen.graph.nodes.filter((node) => figures(node, seen) !== figures(node, before)).map(idOf));
}

function card(node) {
  return h("a", { class: "node", "data-node": idOf(node), href: link(node) },
    h("span", { class: "kind" }, node.kind), h("b", {}, node.name), h("dl"));
}

function link(node) {
  const page = PAGE_OF[node.kind];
  return page === "flow" || page === "sql" ? `#/${page}` : `#/${page}/${encodeURIComponent(node.name)}`;
}

// Columns by the longest way from the entry along the main edges.
function layout(graph) {
  const depth = new Map([[idOf(graph.entry), 0]]);
  const main = graph.edges.filter((edge) => edge.main);
  for (let round = 0; round < graph.nodes.length; round += 1) {
    let moved = false;
    for (const { source, target } of main) {
      const from = depth.get(idOf(source));
      if (from === undefined || target === undefined) continue;
      const known = depth.get(idOf(target));
      if ((known === undefined || known < from + 1) && from + 1 < graph.nodes.length) {
        depth.set(idOf(target), from + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  // The database has no way on, so it needs no column of its own; namespaces and datasets stand beside it.
  const isLast = (node) => ["database", "dataset", "namespace"].includes(node.kind);
  const others = graph.nodes.filter((node) => !isLast(node));
  const last = Math.max(...others.map((node) => depth.get(idOf(node)) ?? 0));
  for (const node of graph.nodes) {
    if (isLast(node)) depth.set(idOf(node), Math.min(depth.get(idOf(node)) ?? last, last));
  }
  const columns = [];
  for (const node of graph.nodes) (columns[depth.get(idOf(node)) ?? 0] ??= []).push(node);
  return columns.filter(Boolean);
}

function lines(picture, graph, busy) {
  const frame = picture.getBoundingClientRect();
  const place = (node) => {
    const box = picture.querySelector(`[data-node="${CSS.escape(idOf(node))}"]`).getBoundingClientRect();
    const left = box.left - frame.left + picture.scrollLeft;
    return { left, right: left + box.width, middle: box.top - frame.top + box.height / 2 };
  };
  const drawing = svg("svg", { width: picture.scrollWidth, height: picture.scrollHeight, "aria-hidden": "true" });
  for (const edge of graph.edges) {
    const from = place(edge.source);
    const to = place(edge.target);
    const same = from.left === to.left;
    const back = !same && to.left < from.right;
    const [x1, x2] = back ? [from.left, to.right] : [from.right, same ? to.right : to.left];
    const bend = Math.max(28, Math.abs(x2 - x1) / 2) * (back ? -1 : 1);
    const end = same ? x2 + bend : x2 - bend;
    const path = svg("path", {
      d: `M${x1} ${from.middle} C${x1 + bend} ${from.middle} ${end} ${to.middle} ${x2} ${to.middle}`,
      class: [edge.main ? "" : "side", busy.has(idOf(edge.source)) ? "busy" : ""].join(" "),
    });
    path.append(svg("title", {}, `${edge.source.name} to ${edge.target.name}: ${edge.what}`));
    drawing.append(path);
  }
  return drawing;
}

function update(picture, node, seen) {
  const element = picture.querySelector(`[data-node="${CSS.escape(idOf(node))}"]`);
  const [figures, troubled] = figuresOf(node, seen);
  element.classList.toggle("troubled", troubled);
  element.querySelector("dl").replaceChildren(...figures.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  if (node.kind === "pipeline" && !element.dataset.ready && seen.window_ends_at[node.name] !== undefined) {
    element.dataset.ready = "yes";
    element.addEventListener("click", async (event) => {
      event.preventDefault();
      await operate("pipeline.roll", { pipeline: node.name });
    });
    element.title = "Click to end the window now";
  }
}

// The figures of a node as pairs, and whether something is wrong there.
function figuresOf(node, seen) {
  const { stats } = seen;
  if (node.kind === "worker") {
    const outcomes = stats.invocations[node.name] ?? {};
    const all = Object.values(outcomes).reduce((sum, each) => sum + each, 0);
    const failed = all - (outcomes.ok ?? 0) - (outcomes.canceled ?? 0);
    return [[["invocations", number(all)], ["failed", number(failed)], ["level", seen.isolation[node.name] ?? "-"]], failed > 0];
  }
  if (node.kind === "pipeline" || node.kind === "stream") {
    const found = (node.kind === "stream" ? stats.streams : stats.pipelines)[node.name];
    if (!found) return [[], false];
    const dropped = Object.values(found.dropped ?? {}).reduce((sum, each) => sum + each, 0);
    const ends = seen.window_ends_at[node.name];
    const left = ends ? `${Math.max(0, Math.ceil(ends - seen.now))} s` : "-";
    return [[["records", number(found.records)], ["waiting", number(found.pending)], ["ends in", left], ["objects", number(found.objects)], ["dropped", number(dropped)]], dropped > 0];
  }
  if (node.kind === "bucket") {
    const found = stats.r2[node.name] ?? {};
    return [[["objects", number(found.objects ?? 0)], ["size", bytes(found.bytes ?? 0)]], false];
  }
  if (node.kind === "namespace") {
    const found = stats.kv[node.name] ?? {};
    return [["reads", "writes", "deletes", "lists"].map((name) => [name, number(found[name] ?? 0)]), false];
  }
  if (node.kind === "dataset") {
    const found = stats.datasets[node.name] ?? {};
    const lost = (found.refused ?? 0) + (found.dropped ?? 0);
    const figures = ["points", "pending", "rows"].map((name) => [name, number(found[name] ?? 0)]);
    return [[...figures, ["lost", number(lost)]], lost > 0];
  }
  if (node.kind === "queue") {
    const found = stats.queues[node.name] ?? {};
    const age = seen.oldest_seconds[node.name] ?? 0;
    return [[["backlog", number(found.backlog ?? 0)], ["oldest", age ? `${Math.round(age)} s` : "-"], ["delivered", number(found.delivered ?? 0)], ["retried", number(found.retried ?? 0)], ["dead", number(found.dead ?? 0)]], (found.dead ?? 0) > 0];
  }
  return [[], false];
}
