// Runs both Workers in Miniflare: node miniflare.mjs PORT.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const require = createRequire(here("../../portability/package.json"));
const { Miniflare, convertV4MiniflareOptions } = require("miniflare");
const common = { modules: true, compatibilityDate: "2026-07-01" };
const miniflare = new Miniflare(convertV4MiniflareOptions({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  workers: [
    {
      ...common, name: "receiver", scriptPath: here("receiver.js"),
      serviceBindings: { TAIL: "tail" }, tails: ["tail"],
    },
    { ...common, name: "tail", scriptPath: here("tail.js") },
  ],
}));
await miniflare.ready;
process.on("SIGTERM", () => miniflare.dispose().then(() => process.exit(0)));
