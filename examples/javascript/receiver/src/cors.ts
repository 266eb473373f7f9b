// CORS headers: the web pages that may read the receiver's responses, and post JSON to it.

const ANY = "*";

/** Headers of a response; `origins` is `*`, or origins separated by spaces, or empty. */
export function corsHeaders(origins: string, origin: string): Record<string, string> {
  if (origins === ANY) return { "access-control-allow-origin": ANY };
  if (!origins) return {};
  const vary = { vary: "Origin" }; // a cache must not serve the response for one origin to another
  if (!origin || !origins.split(/\s+/).includes(origin)) return vary;
  return { "access-control-allow-origin": origin, ...vary };
}

/** The same plus the preflight headers; unchanged if the origin is not allowed. */
export function preflightHeaders(headers: Record<string, string>): Record<string, string> {
  if (!("access-control-allow-origin" in headers)) return headers;
  return {
    ...headers,
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "content-encoding, content-type",
    "access-control-max-age": "86400",
  };
}
