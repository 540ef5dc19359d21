// Numbers as the text that the API sent: a float would round what lies beyond 2^53, and 0.1.

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const NUMBER = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,2}))?$/;

// JSON whose numbers arrive as texts.
export function read(json) {
  return JSON.parse(json.replace(TOKEN, (token) => (token[0] === '"' ? token : `"${token}"`)));
}

// A value as JSON; a BigInt becomes a number with all its digits, what is undefined is left out.
export function write(value) {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const given = Object.entries(value).filter(([, v]) => v !== undefined);
  return `{${given.map(([name, v]) => `${JSON.stringify(name)}:${write(v)}`).join(",")}}`;
}

// Moves the point of a decimal to the right (to the left where `places` is negative).
export function shift(text, places) {
  const found = NUMBER.exec(String(text).trim());
  if (!found) throw new Error(`expected a number such as 5 or 7.25, got ${text || "nothing"}`);
  const [, sign, whole, part = "", exponent = "0"] = found;
  let point = whole.length + Number(exponent) + places;
  let digits = whole + part;
  if (point < 1) {
    digits = "0".repeat(1 - point) + digits;
    point = 1;
  }
  digits = digits.padEnd(point, "0");
  const left = digits.slice(0, point).replace(/^0+(?=\d)/, "");
  const right = digits.slice(point).replace(/0+$/, "");
  const moved = left + (right && `.${right}`);
  return moved === "0" ? moved : sign + moved;
}

// Thousands apart.
export function grouped(text) {
  const [whole, part] = text.split(".");
  const apart = whole.replace(/\B(?=(?:\d{3})+$)/g, "\u202f");
  return part === undefined ? apart : `${apart}.${part}`;
}

export const sats = (text) => (text === null ? "–" : `${grouped(text)} sat`);
export const msats = (text) => `${grouped(shift(text, -3))} sat`;
export const percent = (fraction) => `${shift(fraction, 2)}\u202f%`;

// The sum of two fees, each in whole parts per million.
export const sum = (one, other) =>
  shift((BigInt(shift(one, 6)) + BigInt(shift(other, 6))).toString(), -6);

// Whole numbers multiplied.
export const times = (one, other) => (BigInt(one) * BigInt(other)).toString();

// What was typed as a percentage, as the fraction that the API takes: whole parts per million.
export function fraction(typed) {
  const moved = shift(typed.replace(",", "."), -2);
  if (!/^(?:0(?:\.\d{1,6})?|1)$/.test(moved)) {
    throw new Error(`expected a percentage from 0 to 100 with at most four decimals, got ${typed}`);
  }
  return moved;
}

// A whole number that was typed, blanks between its digits allowed; null where nothing was.
export function whole(typed) {
  const digits = typed.replace(/[\s\u202f]/g, "");
  if (digits === "") return null;
  if (!/^\d+$/.test(digits)) throw new Error(`expected a whole number, got ${typed}`);
  return BigInt(digits);
}

// Likewise, where something must have been typed.
export function given(typed) {
  const number = whole(typed);
  if (number === null) throw new Error("expected a whole number, got nothing");
  return number;
}
