"""The keys of wrangler files that Cloudflare's own tool knows, table by table.

Facts: config-schema.json of wrangler 4.164; a test compares.  Tables that edgesim does not read are
not looked into.
"""

KEYS: dict[str, frozenset[str]] = {
    "": frozenset(
        (
            *("$schema", "access", "account_id", "addresses", "agent_memory", "ai", "ai_search"),
            *("ai_search_namespaces", "alias", "analytics", "analytics_engine_datasets"),
            *("artifacts", "assets", "base_dir", "browser", "build", "cache", "cloudchamber"),
            *("compatibility_date", "compatibility_flags", "compliance_region", "connect"),
            *("containers", "d1_databases", "data_blobs", "define"),
            *("dependencies_instrumentation", "dev", "dispatch_namespaces", "durable_objects"),
            *("env", "exports", "find_additional_modules", "first_party_worker", "flagship"),
            *("hyperdrive", "images", "jsx_factory", "jsx_fragment", "k2", "keep_names"),
            *("keep_vars", "kv_namespaces", "limits", "logfwdr", "logpush", "main", "media"),
            *("migrations", "minify", "mtls_certificates", "name", "no_bundle", "observability"),
            *("pages_build_output_dir", "pipelines", "placement", "preserve_file_names"),
            *("preview_urls", "previews", "python_modules", "queues", "r2_buckets", "ratelimits"),
            *("route", "routes", "rules", "secrets", "secrets_store_secrets", "send_email"),
            *("send_metrics", "services", "site", "stream", "streaming_tail_consumers"),
            *("tail_consumers", "text_blobs", "triggers", "tsconfig", "unsafe"),
            *("unsafe_hello_world", "upload_source_maps", "vars", "vectorize"),
            *("version_metadata", "vpc_networks", "vpc_services", "wasm_modules"),
            *("worker_loaders", "workers_dev", "workflows"),
        )
    ),
    "r2_buckets": frozenset(
        (
            *("binding", "bucket_name", "jurisdiction", "local_dev", "preview_bucket_name"),
            *("remote",),
        )
    ),
    "pipelines": frozenset((*("binding", "pipeline", "remote", "stream"),)),
    "services": frozenset((*("binding", "entrypoint", "props", "remote", "service"),)),
    "tail_consumers": frozenset((*("environment", "service"),)),
    "queues": frozenset((*("consumers", "producers"),)),
    "queues.producers": frozenset((*("binding", "delivery_delay", "queue", "remote"),)),
    "queues.consumers": frozenset(
        (
            *("dead_letter_queue", "max_batch_size", "max_batch_timeout", "max_concurrency"),
            *("max_retries", "queue", "retry_delay", "type", "visibility_timeout_ms"),
        )
    ),
    "triggers": frozenset((*("crons", "events"),)),
    "limits": frozenset((*("cpu_ms", "subrequests"),)),
}
