// Where a machine stands, in words.

import { ago, badge, clock, el, now } from "./parts.js";

const DAY = 86400;
const WEEK = 7 * DAY;
const SILENT_AFTER = 900;

const PAIRING = {
  unpaired: ["idle", "Not paired"],
  awaiting_session: ["wait", "Paired, waits for the machine"],
  awaiting_confirmation: ["wait", "Waits for its digits"],
  confirmed: ["good", "In service"],
  revoked: ["bad", "Revoked"],
};

const left = (machine) => Number(machine.bunker_token_expires_at) - now();
const timed = (machine) => machine.bunker_token_expires_at !== null && machine.revoked_at === null;

function days(seconds) {
  const whole = Math.floor(seconds / DAY);
  if (whole === 0) return "less than a day";
  return whole === 1 ? "1 day" : `${whole} days`;
}

const over = (machine) => timed(machine) && left(machine) <= 0;

const overdue = (machine) => {
  if (!timed(machine) || left(machine) >= WEEK) return null;
  return over(machine) ? badge("bad", "Pairing expired")
    : badge("wait", `Pairing ends: ${days(left(machine))} left`);
};

export const states = (machine) => [
  !over(machine) && badge(...(PAIRING[machine.confirmation] ?? ["idle", machine.confirmation])),
  overdue(machine),
  machine.disabled_at && badge("bad", "Disabled"),
];

export const disabled = (machine) => machine.disabled_at &&
  el("p", { class: "notice bad" }, "Disabled ", ago(machine.disabled_at), ": ",
    machine.disabled_reason ?? "no reason was given");

// When the bunker's token, and with it the pairing, ends.
export function expiry(machine) {
  if (!timed(machine)) return null;
  const ends = machine.bunker_token_expires_at;
  if (over(machine)) return el("span", { class: "bad" }, `expired on ${clock(ends)}: pair it anew`);
  const words = `${days(left(machine))} left, until ${clock(ends)}`;
  return left(machine) < WEEK ? el("span", { class: "warn" }, words, ": pair it anew in time") : words;
}

export function seen(machine) {
  if (machine.last_seen_at === null) return "never";
  const silent = now() - Number(machine.last_seen_at) > SILENT_AFTER;
  return el("span", { class: silent && "warn" }, ago(machine.last_seen_at));
}

const ROLES = ["viewer", "collector", "operator", "owner", "super"];

// Whether the caller may do what needs a role; the API decides, this only spares the asking.
export const may = (known, role) => ROLES.indexOf(known.role) >= ROLES.indexOf(role);
