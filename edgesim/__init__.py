"""edgesim: a local runtime for Cloudflare-style event pipelines.

The layers, top to bottom; imports point down only:

    cli                                   commands: parse, call, print
    dev, replay                           the HTTP server with reload; fixtures and expectations
    operations, doctor                    operator actions; checks before a start
    simulator                             wires a project's parts together
    runtime                               Workers, their bindings, invocations, tail, queue delivery
    pipelines                             buffer, write-ahead log, roll
    r2, queues, clickhouse, isolates      the primitives, each a portable class over drivers
    config, urls, clock, errors, model    shared by all layers
    system, jail                          what Linux alone offers, and the sandbox made of it
    sdk                                   imported by worker code only

The data path: dev/server -> runtime/worker -> isolates -> runtime/tail -> pipelines/pipeline ->
r2/bucket -> r2/notifications -> queues/consumer -> runtime/delivery -> clickhouse/gateway.
"""
