// node:timers in virtual time.

import { timers } from "./timers.js";
import * as promises from "./node_timers_promises.js";

export const {
  setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate,
} = timers;
export { promises };
export default { ...timers, promises };
