// Which view is shown, to whom. The address says what; the token of this tab says who.

import { Refusal, forget, get, keep, token } from "./api.js";
import { el } from "./parts.js";
import { views } from "./views.js";

// How often the view is brought up to date, and how often while something is waited for.
const EVERY = 4;
const TICK_MS = 5_000;
const by = (id) => document.getElementById(id);
const [view, nav, door, leave, notice, health] =
  ["view", "nav", "door", "leave", "notice", "health"].map(by);

let shown = 0;
let words = "";
// What stays above the view until its user leaves: {node, until}.
let kept = null;

// A token in the fragment goes into this tab and out of the address and the history.
function takeToken() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (!given) return;
  history.replaceState(null, "", `${location.pathname}#/machines`);
  try {
    keep(decodeURIComponent(given[1]));
  } catch (error) {
    say(error.message, true);
  }
}

function say(text, bad) {
  notice.textContent = text;
  notice.hidden = text === "";
  notice.classList.toggle("bad", Boolean(bad));
}

function drop(text) {
  kept?.node.remove();
  kept = null;
  say(text);
}

function closed(why) {
  forget();
  kept = null;
  shown += 1;
  view.replaceChildren();
  health.replaceChildren();
  for (const part of [nav, leave]) part.hidden = true;
  view.hidden = true;
  door.hidden = false;
  by("door-error").textContent = why ?? "";
  document.title = "Sign in – bitSpire fleet";
  by("token").focus();
}

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const known = Object.hasOwn(views, name) ? name : "machines";
  return { name: known, rest, query: new URLSearchParams(query) };
}

function healthLine(state) {
  const simulated = nav.querySelector('a[href="#/simulator"]');
  simulated.hidden = !state.simulated;
  const parts = [
    `Version ${state.version}`,
    state.store.ok ? "database writes" : `database stopped: ${state.store.error}`,
    state.relay_embedded ? "relay runs here" : "relay runs elsewhere",
    state.bunker ? "bunker set up" : "no bunker",
  ];
  health.replaceChildren(
    ...state.alerts.map((alert) => el("p", { class: "bad", role: "alert" }, alert.words)),
    el("p", { class: state.store.ok ? null : "bad" }, parts.join(" · ")));
}

async function showHealth() {
  try {
    healthLine(await get("/health"));
  } catch (refusal) {
    if (refusal.body?.store) healthLine(refusal.body);
    else if (refusal.status !== 401) health.replaceChildren(el("p", { class: "bad" }, refusal.message));
  }
}

// Shows what the address says. `moved`: the user went there, so the view takes the focus.
async function show(moved) {
  if (!token()) return closed();
  const turn = (shown += 1);
  const { name, rest, query } = route();
  door.hidden = true;
  for (const part of [nav, leave, view]) part.hidden = false;
  for (const link of nav.querySelectorAll("a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.setAttribute("aria-busy", "true");
  if (moved) view.replaceChildren(el("p", { class: "empty" }, "Loading…"));
  const page = { rest, query, open, again, drop, news };
  const health = showHealth();
  let parts;
  try {
    parts = await views[name](page);
    await health;
  } catch (error) {
    if (turn !== shown) return;
    if (error instanceof Refusal && error.status === 401) return closed(error.message);
    parts = [el("h1", { tabindex: -1 }, "This cannot be shown"),
      el("p", { class: "error", role: "alert" }, error.message),
      el("button", { type: "button", click: () => show(true) }, "Try again")];
  }
  if (turn !== shown) return;
  view.replaceChildren(...parts.flat().filter(Boolean));
  if (kept) (view.querySelector(".title") ?? view.firstChild).after(kept.node);
  view.setAttribute("aria-busy", "false");
  const heading = view.querySelector("h1");
  document.title = `${heading?.textContent ?? "bitSpire"} – bitSpire fleet`;
  if (moved) {
    scrollTo(0, 0);
    (kept?.node.querySelector("h2") ?? heading)?.focus({ preventScroll: true });
  }
}

function again(text, node, until) {
  kept = node ? { node, until } : null;
  say(text);
  show(true);
}

function news(state) {
  const text = kept?.until?.(state);
  if (text) drop(text);
}

function open(path, text) {
  words = text;
  location.hash = `#/${path}`;
}

const touched = (input) => (input.type === "checkbox" ? input.checked !== input.defaultChecked
  : input.value !== input.defaultValue);

// Not while somebody reads or types in what would be replaced.
function idle() {
  const selected = String(getSelection()) !== "";
  return !document.hidden && token() && !selected && view.getAttribute("aria-busy") === "false"
    && !view.querySelector("details[open], dialog[open]") && !view.querySelector("form :focus")
    && ![...view.querySelectorAll("input, textarea")].some(touched);
}

by("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = by("token");
  try {
    keep(input.value);
    input.value = "";
    say("");
    show(true);
  } catch (error) {
    by("door-error").textContent = error.message;
  }
});
leave.addEventListener("click", () => {
  say("");
  closed();
});
// the address is for views: a jump within the page leaves it as it is
by("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (view.hidden ? by("token") : view).focus();
});
addEventListener("hashchange", () => {
  drop(words);
  words = "";
  takeToken();
  show(true);
});
// a page that comes back out of the browser's memory must not bring it with it
addEventListener("pagehide", () => drop(""));
let ticks = 0;
setInterval(() => {
  ticks += 1;
  if ((kept || ticks % EVERY === 0) && idle()) show(false);
}, TICK_MS);

takeToken();
show(true);
