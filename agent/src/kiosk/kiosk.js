// The page holds no state: it shows what the machine sends and sends what the customer touches.
"use strict";

const token = location.hash.slice(1);
const main = document.getElementById("screen");

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-kiosk-token": token },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(await answer.text());
}

const send = (action) => post("/action", action);

// What was typed stays in its field when the same form is drawn again, and where its digits go.
let field = null;

function show({ number, html }) {
  const form = () => main.querySelector("[data-fields]")?.dataset.action;
  const [before, at] = [form(), field?.id];
  const typed = [...main.querySelectorAll("input[id]")].map((input) => [input.id, input.value]);
  const chosen = main.querySelector("input[type=radio]:checked")?.value;
  main.innerHTML = html;
  field = main.querySelector("input[data-focus]");
  if (before !== undefined && before === form()) {
    for (const [id, value] of typed) document.getElementById(id).value = value;
    for (const input of main.querySelectorAll("input[type=radio]")) input.checked = input.value === chosen;
    field = document.getElementById(at) ?? field;
  }
  (field ?? main.querySelector("[data-focus]"))?.focus();
  send({ action: "seen", screen: number }).catch(() => {});
}

// Puts what was typed into an action; false where a number is missing.
function filled(action) {
  const inputs = [...main.querySelectorAll("input[data-note], input[data-count]")];
  const missing = inputs.filter((input) => !/^\d+$/.test(input.value));
  for (const input of inputs) input.classList.toggle("missing", missing.includes(input));
  if (missing.length > 0) {
    (field = missing[0]).focus();
    return false;
  }
  const notes = inputs.filter((input) => "note" in input.dataset);
  const count = inputs.find((input) => "count" in input.dataset);
  if (action.do.startsWith("empty_")) {
    action.counted = notes.map((input) => ({ minor: Number(input.dataset.note), count: Number(input.value) }));
  }
  if (count) action.count = Number(count.value);
  action.reason = main.querySelector("input[type=radio]:checked")?.value ?? "";
  return true;
}

const KEYS = { clear: () => "", back: (text) => text.slice(0, -1) };

main.addEventListener("focusin", (event) => {
  if (event.target.matches("input:not([type=radio])")) field = event.target;
});

main.addEventListener("click", (event) => {
  const key = event.target.closest("button[data-key]")?.dataset.key;
  if (!key || !field) return;
  const text = KEYS[key] ? KEYS[key](field.value) : field.value + key;
  if (text.length <= field.maxLength || field.maxLength < 0) field.value = text;
  field.focus();
});

main.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button || button.disabled) return;
  const action = JSON.parse(button.dataset.action);
  if (button.dataset.input) {
    action[button.dataset.as ?? "code"] = document.getElementById(button.dataset.input).value;
  }
  if ("fields" in button.dataset && !filled(action)) return;
  button.disabled = true;
  try {
    await send(action);
  } catch {
    button.disabled = false;
  }
});

// A seed leaves its field as it is sent.
main.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-seed]");
  if (!button || button.disabled) return;
  const input = document.getElementById(button.dataset.seed);
  const said = main.querySelector("[data-said]");
  const seed = input.value.trim();
  input.value = "";
  input.focus();
  if (seed === "") return;
  button.disabled = true;
  // what the vault said stays: where it says the same again, the screen is not drawn again
  said.hidden = true;
  try {
    await post("/seed", { seed_url: seed });
  } catch (error) {
    said.textContent = `Not taken: ${error.message || error}`;
    said.hidden = false;
  }
  button.disabled = false;
});

// A scanner types wherever the focus is, and ends with Enter.
document.addEventListener("keydown", (event) => {
  const input = main.querySelector("input[data-typed]");
  if (!input) return;
  if (event.key === "Enter" && event.target === input) {
    event.preventDefault();
    main.querySelector("button[data-seed]").click();
  } else if (event.target !== input && event.key.length === 1) {
    input.focus();
  }
});

// EventSource cannot send the token, so the stream is read by hand.
async function listen() {
  const answer = await fetch("/events", { headers: { "x-kiosk-token": token } });
  if (!answer.ok) throw new Error(await answer.text());
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) show(JSON.parse(data.map((line) => line.slice(5)).join("\n")));
    }
  }
}

async function forever() {
  for (;;) {
    try {
      await listen();
    } catch (error) {
      main.dataset.lost = String(error.message || error);
    }
    main.innerHTML = document.getElementById("lost").innerHTML;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

forever();
