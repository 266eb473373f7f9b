// Queues: backlog, messages, send, redrive, purge; pause and resume.

import { operate } from "./api.js";
import { every } from "./app.js";
import { button, h, number, pretty, table } from "./dom.js";

const PEEK = 50;

export async function queues(root, [name], context) {
  if (name) await one(root, name, context);
  else await all(root, context);
}

async function all(root, { signal }) {
  const list = h("div");
  root.append(h("h2", {}, "Queues"), list);
  await every(2000, signal, async () => {
    list.replaceChildren(table("Queues of the project", [
      { title: "Queue", cell: (each) => h("a", { href: `#/queues/${encodeURIComponent(each.queue)}` }, each.queue) },
      ...["backlog", "delivered", "retried", "dead"].map((key) => ({ title: key, kind: "number", cell: (each) => number(each[key]) })),
      { title: "delivery", cell: (each) => (each.paused ? "paused" : "on") },
    ], await operate("queue.ls"), "The project has no queue."));
  });
}

async function one(root, name, { signal, say }) {
  const messages = h("div");
  const body = h("textarea", { id: "body", rows: 4 }, "{}");
  const target = h("select", { id: "target" });
  const act = (operation, values, text) => async () => {
    try {
      const result = await operate(operation, values());
      say(`${text}: ${Object.entries(result).map(([key, value]) => `${key} ${value}`).join(", ")}`);
      await show();
    } catch (error) {
      say(error.message, true);
    }
  };
  const show = async () => {
    const found = await operate("queue.peek", { queue: name, limit: PEEK });
    messages.replaceChildren(table(`The oldest ${PEEK} messages; looking changes nothing`, [
      { title: "Time", kind: "time", cell: (each) => each.timestamp },
      { title: "Attempts", kind: "number", cell: (each) => each.attempts },
      { title: "Type", cell: (each) => each.contentType },
      { title: "Body", kind: "code", cell: (each) => h("pre", {}, pretty(each.body)) },
      { title: "Actions", cell: (each) => button("Edit a copy", () => { body.value = pretty(each.body); body.focus(); }) },
    ], found, "The queue is empty."));
  };
  const pause = button("Pause", async () => {
    await act(pause.dataset.paused ? "queue.resume" : "queue.pause", () => ({ queue: name }), "delivery")();
    await showPaused();
  });
  const showPaused = async () => {
    const paused = (await operate("queue.ls")).some((each) => each.queue === name && each.paused);
    pause.textContent = paused ? "Resume" : "Pause";
    pause.dataset.paused = paused ? "yes" : "";
  };
  const purge = act("queue.purge", () => ({ queue: name }), "purged");
  root.append(
    h("h2", {}, `Queue ${name}`),
    h("div", { class: "bar" },
      button("Refresh", show), pause,
      h("label", { for: "target" }, "Target queue", target),
      button("Redrive all", act("queue.redrive", () => ({ queue: name, to: target.value }), "redriven")),
      button("Purge", () => { if (window.confirm(`Delete all messages of queue ${name}?`)) purge(); }, { class: "danger" })),
    messages,
    h("h3", {}, "Send a message"),
    h("label", { for: "body" }, "Body, JSON"), body,
    h("p", {}, button("Send", act("queue.send", () => ({ queue: name, body: JSON.parse(body.value) }), "sent"), { class: "first" })),
  );
  const others = (await operate("queue.ls")).map((each) => each.queue).filter((each) => each !== name);
  target.append(...others.map((each) => h("option", {}, each)));
  await show();
  await showPaused();
  signal.addEventListener("abort", () => say(""));
}
