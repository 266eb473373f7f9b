// Miniflare with the receiver, its Tail Worker and a counter, for javascript.py: writes the URL to
// standard error, and the counter's value for each line on standard input. Its own output is every
// console.log of the receiver.

import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { Miniflare, convertV4MiniflareOptions } from "miniflare";

const { receiver, tail, counter, date, vars } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const worker = (name, script, more) => ({
  name,
  modules: true,
  script: readFileSync(script, "utf8"),
  compatibilityDate: date,
  ...more,
});
const options = {
  port: 0,
  workers: [
    worker("receiver", receiver, { bindings: vars, tails: ["tail"] }),
    worker("tail", tail, { serviceBindings: { PIPELINE: "counter", ERROR_PIPELINE: "counter" } }),
    worker("counter", counter),
  ],
};
const miniflare = new Miniflare(convertV4MiniflareOptions(options));
const say = (text) => process.stderr.write(`BENCH ${text}\n`);
say(await miniflare.ready);
for await (const _ of createInterface({ input: process.stdin })) {
  const fetcher = await miniflare.getWorker("counter");
  say(await (await fetcher.fetch("http://counter/")).text());
}
await miniflare.dispose();
