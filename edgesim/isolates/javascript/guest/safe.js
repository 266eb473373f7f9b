// Functions of JavaScript and of workerd as they were before any worker code ran.
//
// Worker code may replace every global, every method of a builtin and every iterator, and may add
// properties to Object.prototype.  So the modules beside it import from here what they use, call
// methods by functions, count through lists instead of iterating, and give workerd and their own
// lists and records no prototype.  An async function awaits the promise that it returns, since a
// returned promise is settled by its method `then`.

export const {
  ArrayBuffer,
  Blob,
  DOMException,
  Date,
  Error,
  Headers,
  Promise,
  ReadableStream,
  Request,
  Response,
  String,
  Symbol,
  TypeError,
  Uint8Array,
  atob,
  btoa,
  decodeURIComponent,
  encodeURIComponent,
} = globalThis;
export const { parse: parseJson, stringify } = JSON;
export const { isFinite } = Number;
export const { now: realNow } = Date;
export const { isArray } = Array;
export const { isView } = ArrayBuffer;
export const { floor } = Math;
export const { keys, entries, getPrototypeOf, setPrototypeOf, prototype: OBJECT } = Object;
export const { apply } = Reflect;
const { defineProperty: tryDefineProperty, deleteProperty } = Reflect;
const { defineProperty } = Object;
const { prototype: ARRAY } = Array;
const { prototype: PROMISE } = Promise;
const { fromCharCode } = String;
const { getOwnPropertyDescriptor, hasOwn } = Object;
const hasInstance = Function.prototype[Symbol.hasInstance];

/** A function that calls a method on its first argument. */
export function calling(method) {
  return (target, ...args) => apply(method, target, args);
}

// workerd's own timers: those of nodejs_compat, on the global object itself, are JavaScript.
const { setTimeout: timer = globalThis.setTimeout } = getPrototypeOf(globalThis);
export const startTimer = (...args) => apply(timer, globalThis, args);

/** A function that reads a property, by the getter that instances of the class inherit. */
function reading({ prototype }, name) {
  let owner = prototype;
  while (owner !== null && !hasOwn(owner, name)) owner = getPrototypeOf(owner);
  // With old compatibility dates it is the instance's own, which nobody can replace for others.
  if (owner === null) return (target) => target[name];
  const { get } = getOwnPropertyDescriptor(owner, name);
  return (target) => apply(get, target, []);
}

export const getHeader = calling(Headers.prototype.get);
export const setHeader = calling(Headers.prototype.set);
export const deleteHeader = calling(Headers.prototype.delete);
export const headersOfRequest = reading(Request, "headers");
export const bodyOfRequest = reading(Request, "body");
export const methodOfRequest = reading(Request, "method");
export const urlOfRequest = reading(Request, "url");
export const cfOfRequest = reading(Request, "cf");
export const textOfRequest = calling(Request.prototype.text);
export const bytesOfRequest = calling(Request.prototype.arrayBuffer);
export const headersOfResponse = reading(Response, "headers");
export const bodyOfResponse = reading(Response, "body");
export const isUsed = reading(Response, "bodyUsed");
export const urlOfResponse = reading(Response, "url");
export const isRedirected = reading(Response, "redirected");
export const textOfResponse = calling(Response.prototype.text);
export const jsonOfResponse = calling(Response.prototype.json);
export const bytesOfResponse = calling(Response.prototype.arrayBuffer);
export const byteLength = reading(ArrayBuffer, "byteLength");
export const milliseconds = calling(Date.prototype.getTime);
export const toUtc = calling(Date.prototype.toUTCString);
export const includes = calling(String.prototype.includes);
export const startsWith = calling(String.prototype.startsWith);
export const endsWith = calling(String.prototype.endsWith);
export const slice = calling(String.prototype.slice);
export const split = calling(String.prototype.split);
export const codeAt = calling(String.prototype.charCodeAt);
export const toLowerCase = calling(String.prototype.toLowerCase);
const entriesOf = calling(Headers.prototype.entries);
const nextOf = calling(getPrototypeOf(new Headers().entries()).next);
const subarray = calling(Uint8Array.prototype.subarray);
const then = calling(Promise.prototype.then);
const resolved = calling(Promise.resolve);

// `await` and `then` of a promise, workerd's own included, look at its constructor: if that were
// another, they would call methods that worker code may replace.
defineProperty(Promise.prototype, "constructor", { writable: false, configurable: false });
defineProperty(Promise, Symbol.species, { configurable: false });

/**
 * Returns a function that puts back what workerd's own functions look up, as it is now: worker code
 * that has replaced it would fail every later invocation of the isolate.
 */
export function keeping() {
  const places = listOf(listOf(PROMISE, "then"), listOf(OBJECT, "toJSON"));
  for (let at = 0; at < places.length; at++) {
    places[at][2] = ownProperty(places[at][0], places[at][1]);
  }
  return () => {
    for (let at = 0; at < places.length; at++) {
      const { 0: target, 1: name, 2: kept } = places[at];
      const now = ownProperty(target, name);
      if (now?.value === kept?.value && now?.get === kept?.get) continue;
      // Neither throws: what worker code has locked stays as it is.
      if (kept === undefined) deleteProperty(target, name);
      else tryDefineProperty(target, name, kept);
    }
  };
}

/** A descriptor that inherits nothing. */
function ownProperty(target, name) {
  const found = getOwnPropertyDescriptor(target, name);
  return found && setPrototypeOf(found, null);
}

export function isA(kind, value) {
  return apply(hasInstance, kind, [value]);
}

export function isResponse(value) {
  try {
    isUsed(value);
    return isA(Response, value);
  } catch {
    return false;
  }
}

/** A list that inherits nothing; `list[list.length] = x` appends. */
export function list() {
  return setPrototypeOf([], null);
}

/** An array for worker code of what `make` returns for each element of `source`. */
export function mapped(source, make) {
  const made = list();
  for (let at = 0; at < source.length; at++) made[at] = make(source[at]);
  return setPrototypeOf(made, ARRAY);
}

/** Defines a property, whatever is inherited for its name. */
export function define(target, name, value, enumerable = true) {
  defineProperty(target, name, {
    __proto__: null,
    value,
    enumerable,
    writable: true,
    configurable: true,
  });
}

/** Copies properties of `source` to `target`. */
export function assign(target, source) {
  const names = keys(source);
  for (let at = 0; at < names.length; at++) define(target, names[at], source[names[at]]);
  return target;
}

/** A promise of a value, or of what a promise or a thenable becomes. */
export function promised(value) {
  return resolved(Promise, value);
}

/** Waits until one of two promises is settled; throws as that does. */
export function race(one, other) {
  return new Promise((resolve, reject) => {
    then(one, () => resolve(), reject);
    then(other, () => resolve(), reject);
  });
}

export function join(parts, separator) {
  let text = "";
  for (let at = 0; at < parts.length; at++) text += at ? separator + parts[at] : parts[at];
  return text;
}

/** A list of values. */
export function listOf(...values) {
  return setPrototypeOf(values, null);
}

/** The names and values of headers. */
export function headerPairs(headers) {
  const pairs = list();
  for (const iterator = entriesOf(headers); ; ) {
    const { done, value } = nextOf(iterator);
    if (done) return pairs;
    pairs[pairs.length] = value;
  }
}

/** Bytes as text, a character for each. */
export function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += apply(fromCharCode, null, subarray(bytes, at, at + 0x8000));
  }
  return text;
}
