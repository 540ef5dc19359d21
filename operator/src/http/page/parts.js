// What views are built of. Text only ever becomes text: nothing here reads HTML.

// Names a kind of XML and is never fetched.
const SVG = "http://www.w3.org/2000/svg";
// Light modules around a code, without which readers do not find it.
const QUIET = 4;

// An element; attributes that are null or false are left out, functions listen.
export function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

const drawn = (tag, attributes, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);
export const empty = (...children) => el("p", { class: "empty" }, ...children);
export const hint = (...children) => el("p", { class: "hint" }, ...children);
export const small = (words) => words && el("small", null, words);
export const title = (words, ...more) =>
  el("div", { class: "title" }, el("h1", { tabindex: -1 }, words), more);
export const card = (heading, ...children) =>
  el("section", { class: "card" }, el("h2", { tabindex: -1 }, heading), ...children);
export const folded = (heading, ...children) =>
  el("details", { class: "card" }, el("summary", null, heading), ...children);

// Pairs of a name and what it is; pairs without a value are left out.
export function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el("dl", null, shown.map(([name, value]) =>
    el("div", null, el("dt", null, name), el("dd", null, value))));
}

// What went wrong in one part of a view stands there; the other parts are shown all the same.
export const part = (heading, asked) => asked.catch((refusal) => {
  if (refusal.status === 401) throw refusal;
  return card(heading, el("p", { class: "error" }, refusal.message));
});

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const pad = (number) => String(number).padStart(2, "0");

export const now = () => Math.floor(Date.now() / 1000);

export function clock(unix) {
  const at = new Date(Number(unix) * 1000);
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return `${day} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

function away(unix) {
  const distance = Number(unix) - now();
  const unit = UNITS.find(([, length]) => Math.abs(distance) >= length);
  return unit ? relative.format(Math.trunc(distance / unit[1]), unit[0]) : "just now";
}

// A time by the clock of this browser.
export function time(unix) {
  if (unix === null) return "–";
  const iso = new Date(Number(unix) * 1000).toISOString();
  return el("time", { datetime: iso, title: away(unix) }, clock(unix));
}

// How long ago, or how far off.
export function ago(unix) {
  const iso = new Date(Number(unix) * 1000).toISOString();
  return el("time", { datetime: iso, title: clock(unix) }, away(unix));
}

// Long hex: its head, and all of it to whoever points at it or copies the row's title.
export const short = (hex) =>
  hex === null ? "–" : el("code", { title: hex }, hex.length > 12 ? `${hex.slice(0, 8)}…` : hex);

// A table whose rows become cards on a narrow screen; the roles survive that.
export function table(caption, columns, rows) {
  const head = columns.map(([name, , kind]) =>
    el("th", { scope: "col", role: "columnheader", class: kind }, name));
  const line = (row) => el("tr", { role: "row" }, columns.map(([name, cell, kind]) =>
    el("td", { role: "cell", "data-name": name, class: kind }, el("span", null, cell(row)))));
  return el("table", { role: "table" },
    caption && el("caption", null, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    el("tbody", { role: "rowgroup" }, rows.map(line)));
}

// What was asked of bunker, relay and database, in order, each with its answer.
export const steps = (done) => el("ol", { class: "steps" }, done.map((one) =>
  el("li", null, badge(one.ok ? "good" : "bad", one.ok ? "done" : "failed"),
    one.step && el("b", null, one.step.replaceAll("_", " ")), el("span", null, one.detail))));

// A QR code: a path over `size` by `size` modules.
export function code({ size, path }, label) {
  const side = Number(size) + 2 * QUIET;
  return drawn("svg", { class: "code", role: "img", "aria-label": label,
    viewBox: `${-QUIET} ${-QUIET} ${side} ${side}`, "shape-rendering": "crispEdges" },
  drawn("rect", { x: -QUIET, y: -QUIET, width: side, height: side, fill: "#fff" }),
  drawn("path", { d: path, fill: "#000" }));
}

// Puts a text into the clipboard; where the browser gives pages none, marks it to be copied by hand.
export function copier(button, shown) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(shown.textContent);
      press.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown);
      press.textContent = "Marked: copy it with the keyboard";
    }
  };
  const press = el("button", { type: "button", click: copy }, button);
  return press;
}
