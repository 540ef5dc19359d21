// As much of a browser as the page uses, for an engine that has none: a tree of elements, an
// address, a store for the tab, requests that the test answers, and clocks that it winds.

const VOID = Symbol("void");

class Node {
  parent = null;
  remove() {
    if (this.parent) this.parent.nodes = this.parent.nodes.filter((node) => node !== this);
    this.parent = null;
  }
}

class Text extends Node {
  constructor(text) {
    super();
    this.textContent = text;
  }
}

class Element extends Node {
  nodes = [];
  attributes = new Map();
  listeners = [];
  typed = VOID;
  ticked = VOID;

  constructor(tag) {
    super();
    this.tag = tag;
    this.classList = { toggle: (name, on) => (on ? this.setAttribute("class", `notice ${name}`) : this.setAttribute("class", "notice")) };
  }

  setAttribute(name, value) { this.attributes.set(name, String(value)); }
  getAttribute(name) { return this.attributes.get(name) ?? null; }
  removeAttribute(name) { this.attributes.delete(name); }
  get id() { return this.getAttribute("id"); }
  get type() { return this.getAttribute("type"); }
  get hidden() { return this.attributes.has("hidden"); }
  set hidden(on) { if (on) this.setAttribute("hidden", ""); else this.removeAttribute("hidden"); }
  get firstChild() { return this.nodes[0] ?? null; }
  get textContent() { return this.nodes.map((node) => node.textContent).join(""); }
  set textContent(text) { this.replaceChildren(text); }

  append(...nodes) {
    for (const node of nodes.map((one) => (one instanceof Node ? one : new Text(String(one))))) {
      node.remove();
      node.parent = this;
      this.nodes.push(node);
    }
  }
  replaceChildren(...nodes) {
    for (const node of [...this.nodes]) node.remove();
    this.append(...nodes);
  }
  after(node) {
    node.remove();
    node.parent = this.parent;
    this.parent.nodes.splice(this.parent.nodes.indexOf(this) + 1, 0, node);
  }

  get all() { return this.nodes.filter((node) => node instanceof Element).flatMap((node) => [node, ...node.all]); }
  matches(selector) {
    const [, tag, of, name, , value] = /^([a-z0-9]*)(?:\.([a-z]+))?(?:\[([a-z-]+)(="([^"]*)")?\])?$/.exec(selector);
    return (!tag || tag === this.tag) && (!of || (this.getAttribute("class") ?? "").split(" ").includes(of))
      && (!name || (value === undefined ? this.attributes.has(name) : this.getAttribute(name) === value));
  }
  querySelectorAll(selectors) {
    const wanted = selectors.split(", ").filter((selector) => !selector.endsWith(":focus"));
    return this.all.filter((one) => wanted.some((selector) => one.matches(selector)));
  }
  querySelector(selectors) { return this.querySelectorAll(selectors)[0] ?? null; }

  get defaultValue() {
    if (this.tag === "textarea") return this.textContent;
    if (this.tag !== "select") return this.getAttribute("value") ?? "";
    return (this.querySelector("option[selected]") ?? this.querySelector("option"))?.getAttribute("value") ?? "";
  }
  get value() { return this.typed === VOID ? this.defaultValue : this.typed; }
  set value(text) { this.typed = text; }
  get defaultChecked() { return this.attributes.has("checked"); }
  get checked() { return this.ticked === VOID ? this.defaultChecked : this.ticked; }
  set checked(on) { this.ticked = on; }

  addEventListener(kind, act) { this.listeners.push([kind, act]); }
  happen(kind) {
    const event = { target: this, preventDefault() {} };
    for (const [of, act] of this.listeners) if (of === kind) act(event);
  }
  focus() {}
  showModal() { this.setAttribute("open", ""); }
  close() { this.removeAttribute("open"); }
}

const made = (tag, attributes, ...nodes) => {
  const one = new Element(tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  one.append(...nodes);
  return one;
};

const links = ["machines", "settlements", "service", "rejected", "relays", "audit", "simulator"];
const parts = ["skip", "view", "door", "leave", "notice", "health", "enter", "token", "door-error"];
const body = made("body", {}, made("nav", { id: "nav" }, ...links.map((name) => made("a", { href: `#/${name}` }))),
  ...parts.map((id) => made("div", { id })));

globalThis.document = {
  body,
  title: "",
  hidden: false,
  createElement: (tag) => new Element(tag),
  createElementNS: (space, tag) => new Element(tag),
  getElementById: (id) => body.all.find((one) => one.id === id) ?? null,
};

const heard = [];
globalThis.addEventListener = (kind, act) => heard.push([kind, act]);
const happen = (kind) => heard.filter(([of]) => of === kind).forEach(([, act]) => act());
const clocks = [];
globalThis.setInterval = (act) => clocks.push(act);

const visited = [];
let hash = "";
globalThis.location = {
  pathname: "/",
  get hash() { return hash; },
  set hash(to) {
    hash = to;
    visited.push(to);
    happen("hashchange");
  },
};
globalThis.history = { replaceState(state, title, address) {
  hash = address.slice(address.indexOf("#"));
  visited.push(address, JSON.stringify(state));
} };

const store = new Map();
globalThis.sessionStorage = {
  getItem: (name) => store.get(name) ?? null,
  setItem: (name, value) => store.set(name, value),
  removeItem: (name) => store.delete(name),
};

let clipboard = "";
globalThis.navigator = { clipboard: { writeText: async (text) => { clipboard = text; } } };
globalThis.getSelection = () => ({ toString: () => "" });
globalThis.scrollTo = () => {};
globalThis.CSS = { escape: (text) => text };
globalThis.Intl = { RelativeTimeFormat: class { format(count, unit) { return `${count} ${unit}`; } } };
globalThis.FormData = class {
  constructor(form) {
    this.values = new Map(form.querySelectorAll("input[name], select[name], textarea[name]")
      .filter((one) => one.type !== "checkbox" || one.checked)
      .map((one) => [one.getAttribute("name"), one.type === "checkbox" ? "on" : one.value]));
  }
  get(name) { return this.values.get(name) ?? null; }
};
globalThis.URLSearchParams = class {
  constructor(of) {
    this.pairs = typeof of === "string" ? of.split("&").filter(Boolean).map((pair) => pair.split("=")) : Object.entries(of ?? {});
  }
  get(name) { return this.pairs.find(([of]) => of === name)?.[1] ?? null; }
  set(name, value) { this.pairs.push([name, value]); }
  toString() { return this.pairs.map((pair) => pair.map(encodeURIComponent).join("=")).join("&"); }
};

const requests = [];
globalThis.fetch = (path, { method, headers, body: sent }) => new Promise((resolve) => {
  const answer = (status, text) => resolve({ status, ok: status < 300, text: async () => text });
  requests.push({ asked: JSON.stringify([method, path, headers.Authorization, sent ?? ""]), answer });
});

const seen = (one) => !one.hidden && (one.parent === null || seen(one.parent));
const kept = () => [...store.values(), ...visited, document.title].join("\n");
const whole = (one) => [one.textContent, ...one.all.flatMap((inner) => [...inner.attributes.values(), inner.value])].join("\n");
const labelled = (words) => body.all.find((one) => ["button", "a"].includes(one.tag) && seen(one) && one.textContent === words);

// What the test does and sees; each answers with a text.
globalThis.test = {
  next: () => requests[0]?.asked ?? "",
  answer: (status, text) => requests.shift().answer(Number(status), text),
  go: (to) => { location.hash = to; },
  tick: () => clocks.forEach((act) => act()),
  hide: () => happen("pagehide"),
  leave: () => document.getElementById("leave").happen("click"),
  press(words) {
    const button = labelled(words);
    if (!button) throw new Error(`no button ${words} in: ${body.textContent}`);
    let form = button;
    while (form && form.tag !== "form") form = form.parent;
    if (form && button.type === "submit") form.happen("submit");
    else button.happen("click");
  },
  type(name, text) { body.querySelector(`[name="${name}"]`).value = text; },
  last(name, text) { body.querySelectorAll(`[name="${name}"]`).at(-1).value = text; },
  check(name) { body.querySelector(`[name="${name}"]`).checked = true; },
  text: () => body.textContent,
  whole: () => whole(body),
  blamed: () => body.querySelectorAll("[aria-invalid]").map((one) =>
    `${one.getAttribute("name")}: ${document.getElementById(`${one.id}-error`).textContent}`).join("\n"),
  shown: (selector) => body.querySelector(selector)?.textContent ?? "",
  address: () => hash,
  kept,
  clipboard: () => clipboard,
};
