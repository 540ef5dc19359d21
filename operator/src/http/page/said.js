// What a machine last said about itself: what a person should know, its devices, its cashbox.

import { grouped } from "./exact.js";
import { ago, badge, card, el, hint, small, table } from "./parts.js";

const STATUS = { ready: "good", starting: "wait", silent: "bad", fault: "bad" };
const FULL_FROM = 90n;

const told = (alert) => el("li", null, el("b", null, alert.code.replaceAll("_", " ")), " ", alert.detail,
  small(["since ", ago(alert.since)]));

const failing = ([name, device]) =>
  el("li", null, el("b", null, name), ` is ${device.status === "fault" ? "faulty" : "silent"}`,
    device.fault !== null && `: ${device.fault}`);

// What a person should know, above everything else.
export function troubles(machine) {
  if (machine.reported === null) return null;
  const devices = Object.entries(machine.reported.devices).filter(([, device]) => STATUS[device.status] === "bad");
  const all = [...machine.reported.alerts.map(told), ...devices.map(failing)];
  return all.length > 0 && el("ul", { class: "troubles" }, all);
}

function cashbox(box, currency) {
  if (box === null) return null;
  const nearly = BigInt(box.capacity) > 0n && BigInt(box.count) * 100n >= BigInt(box.capacity) * FULL_FROM;
  const notes = box.notes.map((pile) => `${grouped(pile.count)} × ${pile.denomination ?? "?"} ${currency}`);
  return [
    el("h3", null, "Cashbox"),
    el("p", { class: nearly ? "warn" : null }, `${grouped(box.count)} of ${grouped(box.capacity)} notes`,
      box.value !== null && `, ${box.value}`),
    notes.length > 0 && hint(notes.join(", ")),
  ];
}

function bin(held, currency) {
  if (!held || BigInt(held.count) === 0n) return null;
  const notes = held.notes.map((pile) => `${grouped(pile.count)} × ${pile.denomination ?? "?"} ${currency}`);
  return [el("h3", null, "Reject bin"), hint(notes.join(", "))];
}

const devices = [
  ["Device", ([name, device]) => [name, name !== device.role && small(device.role)]],
  ["Speaks", ([, device]) => [device.protocol, small(device.version)]],
  ["Status", ([, device]) => [badge(STATUS[device.status] ?? "idle", device.status), small(device.fault)]],
];

export function said(machine) {
  const last = machine.reported;
  if (last === null) return card("The machine", hint("It has not said anything since it was paired."));
  const found = Object.entries(last.devices);
  const versions = Object.entries(last.versions).map(([name, version]) => `${name} ${version}`);
  const open = last.open_transactions.length;
  return card("The machine",
    found.length > 0 && table("", devices, found),
    cashbox(last.cashbox, machine.fiat_code),
    bin(last.reject_bin, machine.fiat_code),
    open > 0 && el("p", null, open === 1 ? "One transaction is under way." : `${open} transactions are under way.`),
    hint("As it said ", ago(last.at), versions.length > 0 && `, by ${versions.join(", ")}`, "."));
}
