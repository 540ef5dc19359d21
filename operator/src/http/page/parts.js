// What views are built of. Text only ever becomes text: nothing here reads HTML.

// An element; attributes that are null or false are left out, functions listen.
export function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
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
export const card = (title, ...children) =>
  el("section", { class: "card" }, el("h2", null, title), ...children);

// Pairs of a name and what it is; pairs without a value are left out.
export function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el("dl", null, shown.map(([name, value]) =>
    el("div", null, el("dt", null, name), el("dd", null, value))));
}

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const pad = (number) => String(number).padStart(2, "0");

export const now = () => Math.floor(Date.now() / 1000);

function clock(unix) {
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
    el("caption", null, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    el("tbody", { role: "rowgroup" }, rows.map(line)));
}

let fields = 0;

// A labelled input: {name, label, hint, tag, ...attributes}.
export function field({ name, label, hint, tag = "input", options, ...attributes }) {
  fields += 1;
  const id = `field-${fields}`;
  const about = hint && el("p", { class: "hint", id: `${id}-hint` }, hint);
  const kind = options ? "select" : tag;
  const control = el(kind, { id, name, "aria-describedby": hint && `${id}-hint`, ...attributes },
    options?.map((option) => el("option", { value: option }, option)));
  return el("div", { class: "field" }, el("label", { for: id }, label), control, about);
}

// A form that hands its values to `act` and shows why that failed; one press, one request.
export function form(button, kind, parts, act) {
  const error = el("p", { class: "error", role: "alert" });
  const press = el("button", { type: "submit", class: kind }, button);
  const submit = async (event) => {
    event.preventDefault();
    error.textContent = "";
    press.disabled = true;
    try {
      await act(Object.fromEntries(new FormData(event.target)));
    } catch (refusal) {
      error.textContent = refusal.message;
    } finally {
      press.disabled = false;
    }
  };
  return el("form", { submit }, parts, error, press);
}

export const folded = (title, ...children) =>
  el("details", { class: "card" }, el("summary", null, title), ...children);
