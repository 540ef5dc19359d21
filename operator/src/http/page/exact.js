// Numbers as the text that the API sent: a float would round what lies beyond 2^53, and 0.1.

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const NUMBER = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,2}))?$/;

// JSON whose numbers arrive as texts.
export function read(json) {
  return JSON.parse(json.replace(TOKEN, (token) => (token[0] === '"' ? token : `"${token}"`)));
}

// A flat object as JSON; a BigInt becomes a number with all its digits.
export function write(fields) {
  const value = (v) => (typeof v === "bigint" ? v.toString() : JSON.stringify(v));
  const given = Object.entries(fields).filter(([, v]) => v !== undefined);
  return `{${given.map(([name, v]) => `${JSON.stringify(name)}:${value(v)}`).join(",")}}`;
}

// Moves the point of a decimal to the right (to the left where `places` is negative).
export function shift(text, places) {
  const found = NUMBER.exec(String(text).trim());
  if (!found) throw new Error(`expected a number such as 5 or 7.25, got ${text}`);
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
  return sign + left + (right && `.${right}`);
}

// Thousands apart.
function grouped(text) {
  const [whole, part] = text.split(".");
  const apart = whole.replace(/\B(?=(?:\d{3})+$)/g, "\u202f");
  return part === undefined ? apart : `${apart}.${part}`;
}

export const sats = (text) => (text === null ? "–" : `${grouped(text)} sat`);
export const msats = (text) => `${grouped(shift(text, -3))} sat`;
export const percent = (fraction) => `${shift(fraction, 2)}\u202f%`;

// What was typed as a percentage, as the fraction that the API takes.
export const fraction = (typed) => shift(typed.replace(",", "."), -2);

// A whole number that was typed, blanks between its digits allowed; null where nothing was.
export function whole(typed) {
  const digits = typed.replace(/[\s\u202f]/g, "");
  if (digits === "") return null;
  if (!/^\d+$/.test(digits)) throw new Error(`expected a whole number, got ${typed}`);
  return BigInt(digits);
}
