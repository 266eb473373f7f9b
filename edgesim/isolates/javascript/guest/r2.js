// The R2 binding of worker code: the bucket, its objects, multipart uploads.

import { current } from "./invocation.js";

const HEADERS = {
  contentType: "content-type",
  contentLanguage: "content-language",
  contentDisposition: "content-disposition",
  contentEncoding: "content-encoding",
  cacheControl: "cache-control",
};
const ALGORITHMS = ["md5", "sha1", "sha256", "sha384", "sha512"];

class Checksums {
  #hex;

  constructor(hex) {
    this.#hex = hex;
    for (const name of ALGORITHMS) if (hex[name] !== undefined) this[name] = fromHex(hex[name]);
  }

  toJSON() {
    return { ...this.#hex };
  }
}

class R2Object {
  constructor(found) {
    const { checksums, uploaded, httpMetadata, body, ...rest } = found;
    Object.assign(this, rest);
    this.uploaded = new Date(uploaded);
    this.checksums = new Checksums(checksums);
    if (httpMetadata !== undefined) this.httpMetadata = withDate(httpMetadata);
  }

  writeHttpMetadata(headers) {
    if (this.httpMetadata === undefined) {
      throw new TypeError(
        `HTTP metadata unknown for key \`${this.key}\`. Did you forget to add 'httpMetadata' to ` +
          "`include` when listing?",
      );
    }
    for (const [field, name] of Object.entries(HEADERS)) {
      if (this.httpMetadata[field] !== undefined) headers.set(name, this.httpMetadata[field]);
    }
    const { cacheExpiry } = this.httpMetadata;
    if (cacheExpiry !== undefined) headers.set("expires", cacheExpiry.toUTCString());
  }
}

class R2ObjectBody extends R2Object {
  #response;

  constructor(found, body) {
    super(found);
    this.#response = new Response(body);
  }

  get body() {
    return this.#response.body;
  }

  get bodyUsed() {
    return this.#response.bodyUsed;
  }

  async arrayBuffer() {
    return this.#response.arrayBuffer();
  }

  async bytes() {
    return new Uint8Array(await this.#response.arrayBuffer());
  }

  async text() {
    return this.#response.text();
  }

  async json() {
    return this.#response.json();
  }

  async blob() {
    const type = this.httpMetadata?.contentType;
    return new Blob([await this.#response.arrayBuffer()], type === undefined ? {} : { type });
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
    const args = [this.key, this.uploadId, partNumber];
    const body = content(value, "uploadPart", "R2MultipartUpload");
    return (await current().callWithBody(this.#bucket, "uploadPart", args, options, body)).value;
  }

  async complete(parts) {
    return shown(await current().call(this.#bucket, "completeMultipartUpload", [this.key, this.uploadId, parts]));
  }

  async abort() {
    await current().call(this.#bucket, "abortMultipartUpload", [this.key, this.uploadId]);
  }
}

export class R2Bucket {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async head(key) {
    return shown(await current().call(this.#name, "head", [String(key)]));
  }

  async get(key, options = {}) {
    const invocation = current();
    const call = [this.#name, "get", [String(key)], crossing(options)];
    const { value, body } = await invocation.callWithBody(...call, null);
    if (value === null) return null;
    return value.body ? new R2ObjectBody(value, body ?? new Uint8Array()) : new R2Object(value);
  }

  async put(key, value, options = {}) {
    const call = [this.#name, "put", [String(key)], crossing(options)];
    return shown((await current().callWithBody(...call, content(value, "put", "R2Bucket"))).value);
  }

  async delete(keys) {
    const named = Array.isArray(keys) ? keys.map(String) : String(keys);
    await current().call(this.#name, "delete", [named]);
  }

  async list(options = {}) {
    const { objects, ...rest } = await current().call(this.#name, "list", [], crossing(options));
    return { ...rest, objects: objects.map((each) => new R2Object(each)) };
  }

  async createMultipartUpload(key, options = {}) {
    const call = [this.#name, "createMultipartUpload", [String(key)], crossing(options)];
    const upload = await current().call(...call);
    return new R2MultipartUpload(this.#name, upload.key, upload.uploadId);
  }

  resumeMultipartUpload(key, uploadId) {
    return new R2MultipartUpload(this.#name, String(key), String(uploadId));
  }
}

/** Options in the form in which they cross: Headers as pairs. */
function crossing(options) {
  return Object.fromEntries(
    Object.entries(options ?? {}).map(([name, value]) => [
      name,
      value instanceof Headers ? [...value.entries()] : value,
    ]),
  );
}

/** The bytes of a value to store, as the body of a request. */
function content(value, method, owner) {
  if (value === null || value === undefined) return new Uint8Array();
  const stored = value instanceof ReadableStream || value instanceof Blob || value instanceof ArrayBuffer;
  if (stored || ArrayBuffer.isView(value) || typeof value === "string") return value;
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
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)).buffer;
}
