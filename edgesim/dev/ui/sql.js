// SQL: an editor with history and saved views, the result as a table and as a chart.

import { sql } from "./api.js";
import { button, h, svg, table } from "./dom.js";

const HISTORY = "edgesim-sql";
const HISTORY_MAX = 20;
const ROWS_MAX = 1000;
const VIEWS = {
  "Tables": "SELECT name, total_rows FROM system.tables WHERE database = currentDatabase()",
  "Events per minute": "SELECT toStartOfMinute(ts) AS minute, count() AS events FROM events GROUP BY minute ORDER BY minute",
  "Ingest lag, seconds": "SELECT toStartOfMinute(inserted_at) AS minute, round(avg(inserted_at - ts), 1) AS lag FROM events GROUP BY minute ORDER BY minute",
  "Errors by reason": "SELECT reason, count() AS errors FROM ingest_errors GROUP BY reason ORDER BY errors DESC",
  "Insert failures": "SELECT * FROM insert_failures ORDER BY failed_at DESC LIMIT 50",
};

export async function sqlPage(root) {
  const query = h("textarea", { id: "query", rows: 5, spellcheck: "false", value: history()[0] ?? VIEWS.Tables });
  const result = h("div", { id: "result", role: "status" });
  const execute = async () => {
    result.replaceChildren("Running…");
    remember(query.value);
    try {
      const answer = await sql(query.value);
      const rows = answer.data.slice(0, ROWS_MAX);
      result.replaceChildren(
        h("p", { class: "soft" }, `${answer.rows} rows in ${answer.statistics?.elapsed?.toFixed(3) ?? "?"} s`),
        chart(answer.meta, rows) ?? "",
        table(rows.length < answer.rows ? `The first ${ROWS_MAX} rows` : "Result", answer.meta.map((column, index) => ({
          title: column.name,
          kind: /Int|Float|Decimal/.test(column.type) ? "number" : "code",
          cell: (row) => (typeof row[index] === "object" ? JSON.stringify(row[index]) : String(row[index])),
        })), rows, "No rows."));
    } catch (error) {
      result.replaceChildren(h("pre", { class: "bad", role: "alert" }, error.message));
    }
  };
  const choices = h("select", { id: "choices", onchange: (event) => { query.value = event.target.value; } },
    h("optgroup", { label: "Views" }, Object.entries(VIEWS).map(([name, text]) => h("option", { value: text }, name))),
    h("optgroup", { label: "History" }, history().map((text) => h("option", { value: text }, text.slice(0, 80)))));
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) execute();
  });
  root.append(
    h("h2", {}, "SQL"),
    h("div", { class: "bar" }, h("label", { for: "choices" }, "Views and history", choices)),
    h("label", { for: "query" }, "Statement (Ctrl-Enter runs it)"), query,
    h("p", {}, button("Run", execute, { class: "first" })),
    result,
  );
}

function history() {
  return JSON.parse(localStorage.getItem(HISTORY) ?? "[]");
}

function remember(text) {
  const texts = [text, ...history().filter((each) => each !== text)].slice(0, HISTORY_MAX);
  localStorage.setItem(HISTORY, JSON.stringify(texts));
}

// Bars for a text and a number, a line for a time and a number; null for other results.
function chart(meta, rows) {
  if (meta.length !== 2 || rows.length < 2 || !/Int|Float|Decimal/.test(meta[1].type)) return null;
  const values = rows.map((row) => Number(row[1]));
  const most = Math.max(...values, 0) || 1;
  const [width, height, foot] = [800, 220, 24];
  const x = (index) => (index * width) / rows.length;
  const y = (value) => (height - foot) * (1 - value / most);
  const label = `${meta[1].name} by ${meta[0].name}, at most ${most}`;
  const drawing = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  if (/Date/.test(meta[0].type)) {
    drawing.append(svg("polyline", { points: values.map((value, index) => `${x(index + 0.5)},${y(value)}`).join(" ") }));
  } else {
    values.forEach((value, index) => drawing.append(svg("rect", { x: x(index) + 1, y: y(value), width: Math.max(1, width / rows.length - 2), height: height - foot - y(value) })));
  }
  const first = String(rows[0][0]);
  const last = String(rows[rows.length - 1][0]);
  drawing.append(svg("text", { x: 0, y: height - 6 }, first), svg("text", { x: width, y: height - 6, "text-anchor": "end" }, last));
  return drawing;
}
