// One invocation: its event, console lines and exception; send it again and compare the outcomes.

import { get, sendAgain } from "./api.js";
import { button, h, pretty, table } from "./dom.js";
import { happened, lines } from "./invocations.js";

export async function invocation(root, [id = ""], { say, signal }) {
  const found = await get(`/invocation?${new URLSearchParams({ id })}`);
  const { trace } = found;
  const result = h("section", { "aria-label": "Comparison", "aria-live": "polite" });
  const again = (message) => async () => {
    result.replaceChildren(h("p", { class: "soft" }, "Sent; the handler runs."));
    try {
      result.replaceChildren(...compared(await sendAgain(id, message)));
    } catch (error) {
      result.replaceChildren(h("p", { class: "bad", role: "alert" }, error.message));
    }
  };
  root.append(
    h("h2", {}, `Invocation ${id}`),
    h("p", {}, h("b", {}, trace.scriptName), " ", happened(trace), " ",
      h("span", { class: trace.outcome === "ok" ? "good" : "bad" }, trace.outcome), ` ${trace.wallTime} ms`),
    found.problem
      ? h("p", { class: "soft" }, `It cannot be sent again: ${found.problem}.`)
      : h("p", {}, button("Send again", again(), { class: "first" }), " to the code as saved now. What the handler does is real: it writes rows, objects and messages again."),
    result,
    h("h3", {}, "Console"),
    h("div", {}, lines(trace), !trace.logs.length && !trace.exceptions.length && h("p", { class: "soft" }, "No line.")),
    found.messages.length ? h("div", {}, h("h3", {}, "Messages"), table("Messages of the batch", [
      { title: "Id", kind: "code", cell: (each) => each.id },
      { title: "Time", kind: "time", cell: (each) => each.timestamp },
      { title: "Attempts", kind: "number", cell: (each) => each.attempts },
      { title: "Body", kind: "code", cell: (each) => h("pre", {}, pretty(each.body)) },
      { title: "Again", cell: (each) => button("Send this message again", again(each.id)) },
    ], found.messages)) : "",
    h("h3", {}, "Event"), h("pre", {}, pretty(found.request ?? trace.event)),
  );
  signal.addEventListener("abort", () => say(""));
}

function compared(found) {
  const { after } = found;
  const ended = [after.outcome, after.status, `${after.wall_ms} ms`].filter((each) => each !== null).join(", ");
  const reloaded = found.reloaded.length ? ` Reloaded first: ${found.reloaded.join(", ")}.` : "";
  return [
    h("h3", {}, found.same ? "The outcome is the same" : "The outcome differs"),
    h("p", {}, found.again ? h("a", { href: `#/invocation/${found.again}` }, `Invocation ${found.again}`) : "It", ` ended: ${ended}.${reloaded}`),
    table("Differences", [
      { title: "What", cell: (each) => each.what },
      { title: "Before", kind: "code", cell: (each) => side(each.before) },
      { title: "Now", kind: "code", cell: (each) => side(each.after) },
    ], found.differences, "Outcome, status, body, console lines, exceptions and decisions are equal."),
  ];
}

function side(value) {
  if (value === null) return h("span", { class: "soft" }, "none");
  return h("pre", {}, Array.isArray(value) ? value.join("\n") : String(value));
}
