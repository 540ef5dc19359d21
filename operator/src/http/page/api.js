// The API, asked with the token of this tab.

import { read, write } from "./exact.js";

const KEY = "bitspire-token";

export const token = () => sessionStorage.getItem(KEY);
export const forget = () => sessionStorage.removeItem(KEY);

// Keeps what was pasted: a token, or the cookie file's line, whose last word is one.
export function keep(pasted) {
  const word = pasted.trim().split(/\s+/).pop();
  if (!/^[\x21-\x7e]+$/.test(word)) throw new Error("expected a token: letters, digits and _");
  sessionStorage.setItem(KEY, word);
}

// The API's own words about why it did not do what was asked, the field that is to blame, and the
// steps that were done before.
export class Refusal extends Error {
  constructor(status, words, body) {
    super(words);
    this.status = status;
    this.body = body;
    this.field = body?.field;
    this.steps = body?.steps ?? [];
  }
}

async function call(method, path, fields) {
  const headers = { Authorization: `Bearer ${token()}` };
  if (fields) headers["Content-Type"] = "application/json";
  const body = fields && write(fields);
  let answer, text;
  try {
    answer = await fetch(`/api/v1${path}`, { method, headers, body });
    text = await answer.text();
  } catch {
    throw new Refusal(0, "The daemon does not answer: see whether it runs, then refresh.");
  }
  let value = null;
  try {
    value = read(text);
  } catch {
    throw new Refusal(answer.status, text || `The answer has the status ${answer.status}.`);
  }
  if (answer.ok) return value;
  const words = value?.error ?? `The answer has the status ${answer.status}.`;
  throw new Refusal(answer.status, words, value);
}

export const get = (path) => call("GET", path);
export const post = (path, fields = {}) => call("POST", path, fields);
export const put = (path, fields) => call("PUT", path, fields);
export const patch = (path, fields) => call("PATCH", path, fields);
