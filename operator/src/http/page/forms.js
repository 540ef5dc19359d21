// What people type and press, and why it was not done: in the API's words, beside the field that
// is to blame.

import { el, steps } from "./parts.js";

let made = 0;
const fresh = (kind) => `${kind}-${(made += 1)}`;

// A labelled control: {name, label, hint, tag, options, ...attributes}. An option is a text, or a
// pair of a value and its words.
export function field({ name, label, hint, tag = "input", options, value, ...attributes }) {
  const id = fresh("field");
  const kind = options ? "select" : tag;
  const about = `${hint ? `${id}-hint ` : ""}${id}-error`;
  const option = (one) => {
    const [of, words] = [one].flat();
    return el("option", { value: of, selected: of === value }, words ?? of);
  };
  const control = el(kind, { id, name, "aria-describedby": about,
    value: kind === "input" ? value : null, ...attributes },
  options ? options.map(option) : kind === "textarea" && value);
  const named = el("label", { for: id }, label);
  const check = attributes.type === "checkbox";
  return el("div", { class: check ? "field check" : "field" },
    check ? [control, named] : [named, control],
    hint && el("p", { class: "hint", id: `${id}-hint` }, hint),
    el("p", { class: "error", id: `${id}-error` }));
}

// Reads fields by their names; what a reader cannot read is that field's error.
const reader = (shown) => {
  const values = new FormData(shown);
  return (name, read = (text) => text) => {
    try {
      return read(values.get(name) ?? "");
    } catch (error) {
      error.field = name;
      throw error;
    }
  };
};

function clear(shown) {
  for (const error of shown.querySelectorAll(".error")) error.replaceChildren();
  for (const control of shown.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

function blame(shown, outcome, refusal) {
  const control = refusal.field && shown.querySelector(`[name="${CSS.escape(refusal.field)}"]`);
  if (control) {
    control.setAttribute("aria-invalid", "true");
    const name = `${refusal.field}: `;
    const words = refusal.message;
    document.getElementById(`${control.id}-error`).textContent =
      words.startsWith(name) ? words.slice(name.length) : words;
    control.focus();
    return;
  }
  const done = refusal.steps ?? [];
  outcome.replaceChildren(
    done.length ? steps([...done, { step: "", ok: false, detail: refusal.message }])
      : refusal.message);
}

// A form that hands its values to `act` and shows why that failed; one press, one request.
export function form(button, kind, parts, act, waiting = button) {
  const outcome = el("div", { class: "error", role: "alert" });
  const press = el("button", { type: "submit", class: kind }, button);
  const submit = async (event) => {
    event.preventDefault();
    clear(event.target);
    press.disabled = true;
    press.textContent = waiting;
    try {
      await act(reader(event.target));
    } catch (refusal) {
      blame(event.target, outcome, refusal);
    } finally {
      press.disabled = false;
      press.textContent = button;
    }
  };
  return el("form", { submit, novalidate: true }, parts, outcome, press);
}

// What is asked before it is done, beside what has to be typed; closed as long as nobody opens it.
export function sure(heading, words, yes, act, inputs = []) {
  const id = fresh("heading");
  const away = () => dialog.close();
  const dialog = el("dialog", { "aria-labelledby": id },
    el("h2", { id }, heading), words,
    // the first button has the focus
    el("div", { class: "buttons" },
      el("button", { type: "button", class: "quiet", click: away }, "Leave it as it is"),
      form(yes, "danger", inputs, act)));
  return dialog;
}

// A button whose press is asked about a second time.
export function asked(button, ...question) {
  const dialog = sure(...question);
  const open = () => dialog.showModal();
  return [el("button", { type: "button", class: "danger", click: open }, button), dialog];
}
