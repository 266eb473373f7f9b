// The R2 binding of worker code: the bucket, its objects, multipart uploads.

import { current } from "./invocation.js";
import {
  ArrayBuffer, Blob, Date, Headers, ReadableStream, Response, String, TypeError, Uint8Array, assign,
  bodyOfResponse, bytesOfResponse, codeAt, define, entries, isA, isArray, isUsed, isView,
  headerPairs, jsonOfResponse, list, listOf, mapped, textOfResponse, toUtc,
} from "./safe.js";

const HEADERS = {
  __proto__: null,
  contentType: "content-type",
  contentLanguage: "content-language",
  contentDisposition: "content-disposition",
  contentEncoding: "content-encoding",
  cacheControl: "cache-control",
};
const ZERO = 48, A = 97; // character codes of hexadecimal digits
const ALGORITHMS = ["md5", "sha1", "sha256", "sha384", "sha512"];

class Checksums {
  #hex;

  constructor(hex) {
    this.#hex = hex;
    for (let at = 0; at < ALGORITHMS.length; at++) {
      const name = ALGORITHMS[at];
      if (hex[name] !== undefined) define(this, name, fromHex(hex[name]));
    }
  }

  toJSON() {
    return { ...this.#hex };
  }
}

class R2Object {
  constructor(found) {
    const { checksums, uploaded, httpMetadata, body, ...rest } = found;
    assign(this, rest);
    define(this, "uploaded", new Date(uploaded));
    define(this, "checksums", new Checksums(checksums));
    if (httpMetadata !== undefined) define(this, "httpMetadata", withDate(httpMetadata));
  }

  writeHttpMetadata(headers) {
    if (this.httpMetadata === undefined) {
      throw new TypeError(
        `HTTP metadata unknown for key \`${this.key}\`. Did you forget to add 'httpMetadata' to ` +
          "`include` when listing?",
      );
    }
    for (const field in HEADERS) {
      const value = this.httpMetadata[field];
      if (value !== undefined) headers.set(HEADERS[field], value);
    }
    const { cacheExpiry } = this.httpMetadata;
    if (cacheExpiry !== undefined) headers.set("expires", toUtc(cacheExpiry));
  }
}

class R2ObjectBody extends R2Object {
  #response;

  constructor(found, body) {
    super(found);
    this.#response = new Response(body);
  }

  get body() {
    return bodyOfResponse(this.#response);
  }

  get bodyUsed() {
    return isUsed(this.#response);
  }

  async arrayBuffer() {
    return await bytesOfResponse(this.#response);
  }

  async bytes() {
    return new Uint8Array(await bytesOfResponse(this.#response));
  }

  async text() {
    return await textOfResponse(this.#response);
  }

  async json() {
    return await jsonOfResponse(this.#response);
  }

  async blob() {
    const type = this.httpMetadata?.contentType;
    return new Blob([await bytesOfResponse(this.#response)], { __proto__: null, type: type ?? "" });
  }
}

class R2MultipartUpload {
  #bucket;

  constructor(bucket, key, uploadId) {
    this.#bucket = bucket;
    this.key = key;
    this.uploadId = uploadId;
  }

  async uploadPart(partNumber, value, options = {}) {
    const args = listOf(this.key, this.uploadId, partNumber);
    const body = content(value, "uploadPart", "R2MultipartUpload");
    return (await current().callWithBody(this.#bucket, "uploadPart", args, options, body)).value;
  }

  async complete(parts) {
    return shown(await current().call(this.#bucket, "completeMultipartUpload", listOf(this.key, this.uploadId, parts)));
  }

  async abort() {
    await current().call(this.#bucket, "abortMultipartUpload", listOf(this.key, this.uploadId));
  }
}

export class R2Bucket {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async head(key) {
    return shown(await current().call(this.#name, "head", listOf(String(key))));
  }

  async get(key, options = {}) {
    const invocation = current();
    const args = listOf(String(key));
    const found = await invocation.callWithBody(this.#name, "get", args, crossing(options), null);
    const { value, body } = found;
    if (value === null) return null;
    return value.body ? new R2ObjectBody(value, body ?? new Uint8Array()) : new R2Object(value);
  }

  async put(key, value, options = {}) {
    const args = listOf(String(key));
    const body = content(value, "put", "R2Bucket");
    return shown((await current().callWithBody(this.#name, "put", args, crossing(options), body)).value);
  }

  async delete(keys) {
    const named = isArray(keys) ? mapped(keys, String) : String(keys);
    await current().call(this.#name, "delete", listOf(named));
  }

  async list(options = {}) {
    const { objects, ...rest } = await current().call(this.#name, "list", list(), crossing(options));
    return { ...rest, objects: mapped(objects, (each) => new R2Object(each)) };
  }

  async createMultipartUpload(key, options = {}) {
    const args = listOf(String(key));
    const upload = await current().call(this.#name, "createMultipartUpload", args, crossing(options));
    return new R2MultipartUpload(this.#name, upload.key, upload.uploadId);
  }

  resumeMultipartUpload(key, uploadId) {
    return new R2MultipartUpload(this.#name, String(key), String(uploadId));
  }
}

/** Options in the form in which they cross: Headers as pairs. */
function crossing(options) {
  const given = entries(options ?? {});
  const made = { __proto__: null };
  for (let at = 0; at < given.length; at++) {
    const { 0: name, 1: value } = given[at];
    made[name] = isA(Headers, value) ? headerPairs(value) : value;
  }
  return made;
}

/** The bytes of a value to store, as the body of a request. */
function content(value, method, owner) {
  if (value === null || value === undefined) return new Uint8Array();
  const stored = isA(ReadableStream, value) || isA(Blob, value) || isA(ArrayBuffer, value);
  if (stored || isView(value) || typeof value === "string") return value;
  throw new TypeError(
    `Failed to execute '${method}' on '${owner}': parameter 2 is not of type 'ReadableStream or ` +
      "ArrayBuffer or ArrayBufferView or string or Blob'.",
  );
}

function shown(found) {
  return found === null ? null : new R2Object(found);
}

function withDate({ cacheExpiry, ...metadata }) {
  return cacheExpiry === undefined ? metadata : { ...metadata, cacheExpiry: new Date(cacheExpiry) };
}

function fromHex(hex) {
  const buffer = new ArrayBuffer(hex.length / 2);
  const bytes = new Uint8Array(buffer);
  for (let at = 0; at < hex.length; at++) {
    const code = codeAt(hex, at);
    bytes[at >> 1] = (bytes[at >> 1] << 4) | (code < A ? code - ZERO : code - A + 10);
  }
  return buffer;
}
