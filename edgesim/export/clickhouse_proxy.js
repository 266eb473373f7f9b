// env.CLICKHOUSE on Cloudflare: passes each request on to the database, with its credentials.
// It has no address of its own (workers_dev is off), so only service bindings reach it.
export default {
  async fetch(request, env) {
    const { pathname, search } = new URL(request.url);
    const passed = new Request(new URL(pathname + search, env.CLICKHOUSE_URL), request);
    passed.headers.set("X-ClickHouse-User", env.CLICKHOUSE_USER);
    passed.headers.set("X-ClickHouse-Key", env.CLICKHOUSE_PASSWORD);
    return fetch(passed);
  },
};
