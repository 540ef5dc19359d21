// The page holds no state: it shows what the machine sends and sends what the customer touches.
"use strict";

const token = location.hash.slice(1);
const main = document.getElementById("screen");

async function send(action) {
  const answer = await fetch("/action", {
    method: "POST",
    headers: { "content-type": "application/json", "x-kiosk-token": token },
    body: JSON.stringify(action),
  });
  if (!answer.ok) throw new Error(await answer.text());
}

function show({ number, html }) {
  main.innerHTML = html;
  main.querySelector("[data-focus]")?.focus();
  send({ action: "seen", screen: number }).catch(() => {});
}

main.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button || button.disabled) return;
  const action = JSON.parse(button.dataset.action);
  if (button.dataset.input) {
    action.code = document.getElementById(button.dataset.input).value;
  }
  button.disabled = true;
  try {
    await send(action);
  } catch {
    button.disabled = false;
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
