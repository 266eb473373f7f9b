// The bill: what this run would have cost on Cloudflare so far, and a month at this rate.

import { get } from "./api.js";
import { every } from "./app.js";
import { h, number, table } from "./dom.js";

const dollars = (value) => (value >= 0.01 || !value ? value.toFixed(2) : value.toPrecision(2));

export async function cost(root, words, { signal }) {
  const bill = h("div");
  root.append(h("h2", {}, "Cost"), bill);
  await every(5000, signal, async () => {
    const { seconds, used, month } = await get("/cost");
    bill.replaceChildren(
      h("p", {}, `This run of ${number(Math.round(seconds))} s would have cost `, h("b", {}, `$${dollars(used.usd)}`),
        `; a month at this rate, with the plan and its allowances, `, h("b", {}, `$${dollars(month.usd)}`),
        `. Prices of ${used.prices_as_of}.`),
      table("Used by this run, every unit paid for", columns(), used.lines, "Nothing was used yet."),
      table("A month at this rate", columns(), month.lines, ""));
  });
}

function columns() {
  return [
    { title: "Stage", cell: (line) => line.stage },
    { title: "Item", cell: (line) => line.title },
    { title: "Quantity", kind: "number", cell: (line) => number(Math.round(line.quantity * 1000) / 1000) },
    { title: "USD", kind: "number", cell: (line) => dollars(line.usd) },
  ];
}
