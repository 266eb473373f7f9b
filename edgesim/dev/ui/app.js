// The router: the hash names the page and its argument; a page cleans up when it is left.

import { h } from "./dom.js";
import { cost } from "./cost.js";
import { faults, showBanner } from "./faults.js";
import { find } from "./find.js";
import { flow } from "./flow.js";
import { invocation } from "./invocation.js";
import { invocations } from "./invocations.js";
import { queues } from "./queues.js";
import { r2 } from "./r2.js";
import { sqlPage } from "./sql.js";

const PAGES = { flow, invocations, invocation, find, queues, r2, sql: sqlPage, cost, faults };
const main = document.getElementById("main");
const connection = document.getElementById("connection");
let leave = new AbortController();

export function say(text, bad = false) {
  connection.textContent = text;
  connection.className = bad ? "bad" : "";
}

async function show() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const [, name = "flow", ...words] = location.hash.replace(/^#/, "").split("/");
  const page = PAGES[name] ?? flow;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}` || (name === "invocation" && link.hash === "#/invocations")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const root = h("div");
  main.replaceChildren(root);
  try {
    await page(root, words.map(decodeURIComponent), { signal, say });
  } catch (error) {
    if (!signal.aborted) root.append(h("p", { class: "bad", role: "alert" }, String(error.message)));
  }
}

// Run a function now and again after each pause, until the page is left.
export async function every(milliseconds, signal, action) {
  while (!signal.aborted) {
    try {
      await action();
      say("");
    } catch (error) {
      if (signal.aborted) return;
      say(`no answer: ${error.message}`, true);
    }
    await new Promise((resume) => setTimeout(resume, milliseconds));
  }
}

window.addEventListener("hashchange", show);
show();
showBanner();
