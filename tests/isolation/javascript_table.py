"""Attacks on JavaScript Workers by kind: what is promised.  isolation.md in docs/ has the table."""

from typing import NamedTuple

from tests.isolation.table import CONTAINED

LIKE_PRODUCTION = "as in production: later invocations of the same isolate see it"
BROKEN = "as in production: breaks workerd's own functions in that isolate"


class JavaScriptAttacks(NamedTuple):
    """Attacks of one kind; ``outcomes``: how the Worker's invocations may end."""

    what: str
    outcomes: str
    names: str
    process: str = CONTAINED
    warm: str = CONTAINED


CPU, MEMORY, RAISES = "exceededCpu", "exceededMemory", "exception"

ATTACKS = [
    JavaScriptAttacks(
        "loops for ever: in a callback, in microtasks, in a regular expression, in a generator, in "
        "`JSON.parse`, in WebAssembly, between timers",
        CPU,
        "busy-loop busy-microtasks busy-regex busy-generator busy-sort busy-json busy-timers "
        "busy-wasm",
    ),
    JavaScriptAttacks(
        "answers, then loops in `waitUntil` work, or makes more of it for ever",
        CPU,
        "busy-after-response wait-until-chain",
    ),
    JavaScriptAttacks(
        "loops where the platform reads its values: a response, a header, an argument of a call, a "
        "stack, `Error.prepareStackTrace`, `toJSON` of a log line",
        CPU,
        "busy-to-string busy-header busy-stack-getter busy-prepare rpc-proxy log-endless",
    ),
    JavaScriptAttacks("recursion without end", RAISES, "busy-stack"),
    JavaScriptAttacks(
        "allocates without end: arrays, buffers, strings, WebAssembly memory, promises, maps, "
        "blobs, files of `node:fs`, a stream that nobody reads, parsed JSON",
        f"{MEMORY} {CPU}",
        "memory-array memory-buffers memory-buffers-sync memory-flat-strings memory-wasm "
        "memory-promises memory-map memory-blobs memory-tee memory-caught json-bomb node-fs-fill",
    ),
    JavaScriptAttacks(
        "goes beyond a limit of workerd: a string's length, 10,000 timers",
        RAISES,
        "memory-string memory-timers",
    ),
    JavaScriptAttacks("awaits a promise that nothing will settle", RAISES, "never-answers"),
    JavaScriptAttacks(
        "the same, with a timer that goes on: ends when its client leaves",
        "canceled",
        "never-answers-with-a-timer",
    ),
    JavaScriptAttacks(
        "answers with a stream that hangs", "ok", "stream-that-hangs stream-that-hangs-later"
    ),
    JavaScriptAttacks(
        "answers with a stream that fails before its first byte",
        RAISES,
        "stream-that-fails framing-fixed",
    ),
    JavaScriptAttacks("answers with a stream without end", CPU, "endless-body"),
    JavaScriptAttacks(
        "never ends its `waitUntil` work, or lets it fail",
        f"ok {RAISES}",
        "wait-until-for-ever wait-until-past-the-wrapper wait-until-rejects abort",
    ),
    JavaScriptAttacks(
        "runs code from text or bytes: `eval`, `Function`, `WebAssembly.compile`, `node:vm`",
        RAISES,
        "eval new-function wasm-compile node-vm",
    ),
    JavaScriptAttacks(
        "imports internal modules of workerd or edgesim, or a file, by a computed name",
        "ok",
        "import-internal loopback",
    ),
    JavaScriptAttacks("reads the machine's files by `node:fs`", "ok", "node-fs"),
    JavaScriptAttacks(
        "starts, kills or changes processes and threads by Node's modules",
        RAISES,
        "node-child-process node-process node-worker-threads node-v8",
    ),
    JavaScriptAttacks(
        "opens sockets: `cloudflare:sockets`, `node:net`, `node:dns`, `WebSocket`, `EventSource`",
        f"{RAISES} {CPU}",
        "sockets many-sockets node-net node-dns web-socket event-source",
    ),
    JavaScriptAttacks(
        "asks edgesim's own ports by `fetch` or `node:http`, under every name of this machine",
        f"ok {RAISES}",
        "admin node-http glue-port",
    ),
    JavaScriptAttacks(
        "takes workerd's own `fetch` from under edgesim's, and forges the platform's headers",
        f"ok {RAISES} {MEMORY} {CPU}",
        "native-fetch native-fetch-forged native-fetch-many",
    ),
    JavaScriptAttacks("makes hundreds of fetches at once", f"{RAISES} {CPU}", "many-fetches"),
    JavaScriptAttacks(
        "calls itself without end, one by one or in a fan-out",
        f"{RAISES} canceled",
        "service-recursion service-fan-out rpc-recursion",
    ),
    JavaScriptAttacks(
        "sends values by RPC that throw, have cycles, are nested deeply, huge, or named "
        "`__proto__`; calls methods that no class defines",
        f"ok {RAISES} {MEMORY} {CPU}",
        "rpc-getters rpc-cycle rpc-deep rpc-huge rpc-methods rpc-prototype",
    ),
    JavaScriptAttacks(
        "answers or asks with megabytes of headers or of URL",
        f"{MEMORY} {RAISES} {CPU}",
        "header-many header-bomb header-long request-header-bomb url-bomb",
    ),
    JavaScriptAttacks(
        "answers with framing, upgrade or platform headers of its own, a huge reason, a false "
        "`content-encoding`",
        "ok",
        "framing framing-204 status-text platform-headers gzip-bomb response-of-another",
    ),
    JavaScriptAttacks(
        "answers with a WebSocket, a proxy, or no response at all",
        RAISES,
        "switching-protocols no-response response-proxy",
    ),
    JavaScriptAttacks(
        "throws exceptions whose getters, proxies or stacks are hostile, huge ones, or 100,000",
        f"{RAISES} {MEMORY} {CPU}",
        "exception-getters exception-objects exception-proxy exception-revoked exception-huge "
        "exception-undefined exception-prepare exception-stack-forged exceptions-many",
    ),
    JavaScriptAttacks(
        "logs a million lines or 100 MB at once", f"{CPU} {MEMORY}", "log-flood log-huge"
    ),
    JavaScriptAttacks(
        "logs proxies, cycles, deep values, getters, by every method of `console`, or at a false "
        "time",
        "ok",
        "log-cyclic log-deep log-proxy log-to-json log-of-another-time log-date-text log-getters "
        "console-all",
    ),
    JavaScriptAttacks(
        "changes module state, globals, names of `env`", "ok", "state env", warm=LIKE_PRODUCTION
    ),
    JavaScriptAttacks(
        "replaces methods of builtins (`Object`, `Array`, `Promise`, `Function`, `String`, `JSON`, "
        "`Map`, `Date`, `Reflect`, iterators, ...), or adds to `Object.prototype`",
        f"ok {RAISES}",
        "poison-object poison-object-values poison-object-functions poison-array "
        "poison-array-index poison-iterator poison-promise poison-promise-constructor "
        "poison-promise-species poison-function poison-json poison-string poison-number "
        "poison-map-set poison-has-instance poison-globals poison-date poison-reflect poison-error",
    ),
    JavaScriptAttacks(
        "replaces workerd's and edgesim's own: `Request`, `Response`, `Headers`, `fetch`, "
        "`console`, `AsyncLocalStorage`, bindings, `ctx`",
        "ok",
        "poison-headers poison-request poison-response poison-console poison-als poison-bindings "
        "poison-context",
    ),
    JavaScriptAttacks(
        "replaces `Promise.prototype.then`, or adds `Object.prototype.toJSON`",
        f"ok {RAISES}",
        "poison-then poison-to-json poison-then-getter",
    ),
    JavaScriptAttacks(
        "locks `Promise.prototype.then` with a function of its own",
        f"ok {RAISES}",
        "poison-then-locked",
        warm=BROKEN,
    ),
    JavaScriptAttacks(
        "records what builtins are given, to learn the numbers of other invocations", "ok", "spy"
    ),
]
