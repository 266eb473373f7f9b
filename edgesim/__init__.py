"""edgesim: a local runtime for Cloudflare-style event pipelines.

The floors, top to bottom; imports point down only:

    cli                                   commands: parse, call, print
    dev, replay                           the HTTP server with reload; fixtures and expectations
    operations, doctor                    what commands do; what is checked before a start
    simulator                             the one wiring place
    runtime                               Workers, their bindings, invocations, tail, queue delivery
    pipelines                             buffer, write-ahead log, roll
    r2, queues, clickhouse, isolates      the primitives, each a portable class over drivers
    config, urls, clock, errors, model    what everyone may use
    sdk                                   what worker code imports (never imported from above)

The data path: dev/server -> runtime/worker -> isolates -> runtime/tail -> pipelines/pipeline ->
r2/bucket -> r2/notifications -> queues/consumer -> runtime/delivery -> clickhouse/gateway.
"""
