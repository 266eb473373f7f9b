// node:timers/promises in virtual time.

import { wait } from "./timers.js";

export async function setTimeout(ms, value, options) {
  await wait(ms, options?.signal);
  return value;
}

export async function setImmediate(value, options) {
  return setTimeout(0, value, options);
}

export async function* setInterval(ms, value, options) {
  for (;;) yield setTimeout(Math.max(Number(ms) || 0, 1), value, options);
}

export const scheduler = {
  wait: (ms, options) => wait(ms, options?.signal),
  yield: () => setImmediate(),
};
export default { setTimeout, setImmediate, setInterval, scheduler };
