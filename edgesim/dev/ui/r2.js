// R2: browse by prefix, preview, download, upload, delete, notify again.

import { download, operate, upload } from "./api.js";
import { button, bytes, h, number, save, table } from "./dom.js";

const PREVIEW_BYTES = 100_000;
const LINES = 50;

export async function r2(root, [bucket, prefix = "", cursor = ""], context) {
  if (!bucket) {
    const found = await operate("r2.buckets");
    root.append(h("h2", {}, "R2"), table("Buckets of the project", [
      { title: "Bucket", cell: (each) => h("a", { href: `#/r2/${encodeURIComponent(each.bucket)}` }, each.bucket) },
    ], found, "The project has no bucket."));
    return;
  }
  await browse(root, bucket, prefix, cursor, context);
}

const at = (...words) => `#/r2/${words.map(encodeURIComponent).join("/")}`;

async function browse(root, bucket, prefix, cursor, { say }) {
  const page = await operate("r2.page", { bucket, prefix, cursor: cursor || null });
  const preview = h("div", { role: "region", "aria-label": "Preview" });
  const again = async () => { root.replaceChildren(); await browse(root, bucket, prefix, cursor, { say }); };
  const act = (text, action) => async () => {
    try {
      await action();
      say(text);
      await again();
    } catch (error) {
      say(error.message, true);
    }
  };
  const file = h("input", { id: "file", type: "file" });
  root.append(
    h("h2", {}, `Bucket ${bucket}`),
    h("p", {}, crumbs(bucket, prefix)),
    table("Folders and objects", [
      { title: "Key", cell: (each) => each.prefix === undefined
        ? button(each.key.slice(prefix.length), async () => preview.replaceChildren(await previewOf(bucket, each.key)))
        : h("a", { href: at(bucket, each.prefix) }, each.prefix.slice(prefix.length)) },
      { title: "Size", kind: "number", cell: (each) => (each.size === undefined ? "" : bytes(each.size)) },
      { title: "Uploaded", kind: "time", cell: (each) => each.uploaded ?? "" },
      { title: "Actions", cell: (each) => (each.prefix === undefined ? [
        button("Notify again", act(`notified again: ${each.key}`, () => operate("r2.notify", { bucket, key: each.key }))), " ",
        button("Delete", async () => {
          if (window.confirm(`Delete ${each.key}?`)) await act(`deleted ${each.key}`, () => operate("r2.rm", { bucket, key: each.key }))();
        }, { class: "danger" }),
      ] : "") },
    ], [...page.prefixes.map((each) => ({ prefix: each })), ...page.objects], "No object here."),
    page.cursor ? h("p", {}, h("a", { href: at(bucket, prefix, page.cursor) }, "Next page")) : "",
    h("div", { class: "bar" }, h("label", { for: "file" }, "Upload here", file),
      button("Upload", async () => {
        const [chosen] = file.files;
        if (chosen) await act(`uploaded ${prefix}${chosen.name}`, () => upload(bucket, prefix + chosen.name, chosen))();
      })),
    preview,
  );
}

function crumbs(bucket, prefix) {
  const parts = prefix.split("/").slice(0, -1);
  const links = [h("a", { href: at(bucket) }, bucket)];
  parts.forEach((part, index) => {
    links.push(" / ", h("a", { href: at(bucket, `${parts.slice(0, index + 1).join("/")}/`) }, part));
  });
  return links;
}

async function previewOf(bucket, key) {
  const toFile = button("Download", async () => save(await (await download(bucket, key)).blob(), key.split("/").pop()));
  if (/\.parquet$/i.test(key)) {
    return h("div", { class: "panel" }, h("h3", {}, key), toFile, await parquetTable(bucket, key));
  }
  const response = await download(bucket, key);
  const [content, cut] = await beginning(response.body, key.endsWith(".gz"));
  return h("div", { class: "panel" }, h("h3", {}, key), toFile, shown(key, content), cut ? h("p", { class: "soft" }, `The first ${bytes(PREVIEW_BYTES)} are shown.`) : "");
}

// The first bytes of an object, unpacked; the rest is not read.
async function beginning(body, packed) {
  const reader = (packed ? body.pipeThrough(new DecompressionStream("gzip")) : body).getReader();
  const chunks = [];
  let size = 0;
  while (size < PREVIEW_BYTES) {
    const { done, value } = await reader.read();
    if (done) return [new Uint8Array(await new Blob(chunks).arrayBuffer()), false];
    chunks.push(value);
    size += value.length;
  }
  await reader.cancel();
  return [new Uint8Array(await new Blob(chunks).arrayBuffer()).slice(0, PREVIEW_BYTES), true];
}

function shown(key, content) {
  const name = key.replace(/\.gz$/, "");
  if (/\.(png|jpe?g|gif|webp)$/i.test(name)) {
    return h("img", { src: URL.createObjectURL(new Blob([content])), alt: key });
  }
  const text = new TextDecoder().decode(content);
  if (/\.(ndjson|jsonl|json)$/i.test(name)) {
    const rows = rowsOf(text);
    if (rows) return rowsTable(rows);
  }
  return h("pre", {}, text);
}

function rowsOf(text) {
  try {
    const lines = text.split("\n").filter(Boolean).slice(0, LINES);
    return lines.map((line) => JSON.parse(line)).filter((row) => row && typeof row === "object");
  } catch {
    return null;
  }
}

// The server reads Parquet, in a confined process.
async function parquetTable(bucket, key) {
  try {
    const { columns, rows, total } = await operate("r2.table", { bucket, key, limit: LINES });
    return rowsTable(rows, columns, `The first ${rows.length} of ${number(total)} rows`);
  } catch (error) {
    return h("p", { class: "bad", role: "alert" }, error.message);
  }
}

function rowsTable(rows, columns = null, caption = `The first ${rows.length} records`) {
  const typed = columns ?? [...new Set(rows.flatMap((row) => Object.keys(row)))].map((name) => ({ name }));
  return table(caption, typed.map(({ name, type }) => ({
    title: type ? `${name} (${type})` : name,
    kind: "code",
    cell: (row) => (row[name] === undefined ? "" : typeof row[name] === "string" ? row[name] : JSON.stringify(row[name])),
  })), rows);
}
