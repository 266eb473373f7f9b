// Faults of the stores: switch an outage, errors or latency on and off, and the banner that says so.

import { get, glance, switchFaults } from "./api.js";
import { every } from "./app.js";
import { button, h, number, table } from "./dom.js";

const BANNER_MS = 3000;
const AMOUNTS = { error: "50%", latency: "500ms", "lost-answer": "50%", duplicate: "10%", reorder: "10%", stale: "20%" };

export async function faults(root, words, { signal }) {
  const seen = await get("/faults");
  root.append(h("h2", {}, "Faults"));
  if (!seen.allowed) {
    root.append(h("p", {}, "Faults can be switched on in edgesim dev only."));
    return;
  }
  const target = h("select", { id: "target" }, seen.targets.map((each) => h("option", {}, each)));
  const kind = h("select", { id: "kind" }, ["outage", "error", "latency", ...seen.kinds]
    .filter((each, index, all) => all.indexOf(each) === index).map((each) => h("option", {}, each)));
  const amount = h("input", { id: "amount", value: "", placeholder: "such as to 30s" });
  const problem = h("p", { class: "bad", role: "alert" });
  const list = h("div", { id: "rules" });
  kind.addEventListener("change", () => { amount.value = AMOUNTS[kind.value] ?? ""; });

  const change = async (make) => {
    problem.textContent = "";
    try {
      const now = (await get("/faults")).rules.map((each) => each.rule);
      show((await switchFaults(make(now))).rules);
    } catch (error) {
      problem.textContent = error.message;
    }
    paint(await glance("/faults"));
  };
  const show = (rules) => list.replaceChildren(table("Faults that are on", [
    { title: "Rule", kind: "code", cell: (each) => each.rule },
    { title: "Calls struck", kind: "number", cell: (each) => number(each.struck) },
    { title: "Actions", cell: (each) => button(`Switch off ${each.rule}`, () => change((now) => now.filter((rule) => rule !== each.rule))) },
  ], rules, "No fault is on."));

  root.append(
    h("p", {}, "Calls of a store fail or take longer, as in replays with faults. Nothing is lost: edgesim tries again."),
    h("div", { class: "bar" },
      h("label", { for: "target" }, "Target", target),
      h("label", { for: "kind" }, "Fault", kind),
      h("label", { for: "amount" }, "Amount and time", amount),
      button("Switch on", () => change((now) => [...now, `${target.value} ${kind.value} ${amount.value}`.trim()]), { class: "first" }),
      button("Switch all off", () => change(() => []))),
    problem, list);
  await every(1000, signal, async () => show((await get("/faults")).rules));
}

function paint(seen) {
  const banner = document.getElementById("banner");
  const rules = seen?.rules.map((each) => each.rule) ?? [];
  const text = rules.length ? `Faults are on: ${rules.join("; ")}` : "";
  if (banner.dataset.text === text) return;
  banner.dataset.text = text;
  banner.hidden = !text;
  banner.replaceChildren(text, ...(text ? [" ", h("a", { href: "#/faults" }, "Change")] : []));
}

// Look for faults now and then, on whatever page.
export async function showBanner() {
  for (;;) {
    const seen = await glance("/faults");
    if (seen) paint(seen);
    await new Promise((resume) => setTimeout(resume, BANNER_MS));
  }
}
