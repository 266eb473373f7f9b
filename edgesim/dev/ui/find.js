// Where is this event: every stage that holds a text, in order.

import { get } from "./api.js";
import { h, pretty, table } from "./dom.js";

export async function find(root, [text = ""]) {
  const input = h("input", { id: "needle", type: "search", value: text, required: true, placeholder: "an id or any text of the event" });
  const result = h("div", { role: "status" });
  const form = h("form", { class: "bar", onsubmit: (event) => {
    event.preventDefault();
    location.hash = `#/find/${encodeURIComponent(input.value)}`;
  } }, h("label", { for: "needle" }, "Text", input), h("button", { class: "first" }, "Find"));
  root.append(h("h2", {}, "Find an event"), form, result);
  if (!text) return;
  result.append("Searching…");
  const found = await get(`/trace?q=${encodeURIComponent(text)}`);
  const held = found.filter((each) => each.stage !== "not searched");
  result.replaceChildren(
    h("p", {}, held.length ? `Found in ${held.length} places.` : "Found nowhere in this project."),
    table("Places, in the order of the stages", [
      { title: "Stage", cell: (each) => each.stage },
      { title: "Place", cell: (each) => each.place },
      { title: "Time", kind: "time", cell: (each) => each.at ?? "-" },
      { title: "Detail", kind: "code", cell: (each) => details(each.detail) },
    ], found, ""),
  );
}

function details(detail) {
  return Object.entries(detail).map(([name, value]) => h("div", {}, h("span", { class: "soft" }, `${name} `), h("span", {}, pretty(value))));
}
