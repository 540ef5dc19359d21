// The operator's key, pairing a machine, confirming and revoking it.
//
// A seed is a secret for whoever holds it: it is in one card, which goes when its user leaves the
// view, says that they are done, or the machine has redeemed it. It is kept nowhere else.

import { post } from "./api.js";
import { given } from "./exact.js";
import { asked, field, form } from "./forms.js";
import { card, code, copier, el, facts, hint, small, steps, table, time } from "./parts.js";
import { expiry, may } from "./state.js";

const HOURS = 720;
const LOOPBACK = /^wss?:\/\/(localhost|127\.|\[::1\])/;

export const mine = (known, machine) =>
  known.operators.find((operator) => operator.id === machine.operator_id);

// What an operator without a key has to do before anything else; null where there is one.
export function init(page, known, operator) {
  if (!operator || operator.operator_npub !== null) return null;
  const about = el("p", null, "The operator has no key yet. Machines are told their fees and cassettes in "
    + "documents that this key signs, so no machine can be paired before it is there. It is made in the "
    + "bunker and stays there; there is one, for ever, because machines pin it.");
  const heading = known.operators.length > 1 ? `Make the key of ${operator.name}` : "Make the operator's key";
  if (known.bunker_npub === null) {
    return card(heading, about, el("p", { class: "error" }, "There is no bunker yet. Let this daemon "
      + "have its own in the configuration, or start one with "),
    el("code", null, `bitspire-operator bunker serve --admin ${known.bunker_admin_npub}`));
  }
  if (!may(known, "owner")) return card(heading, about, hint("An owner can make it."));
  const make = async () => {
    const done = await post("/operators/init", { operator_id: BigInt(operator.id) });
    page.again(`The operator has its key: ${done.operator_npub}`);
  };
  return card(heading, about, form("Make the key", "", [], make, "Asking the bunker…"));
}

// The seed, once.
function seed(page, machine, paired) {
  const text = el("code", { class: "seed" }, paired.seed_url);
  const done = () => page.drop("The seed is gone from this page.");
  return card(`Seed for ${machine.name}`,
    el("p", { class: "notice bad" }, el("b", null, "Whoever has this seed is the machine. "),
      "It is shown this once and works once. Give it to the machine and to nobody else: no chat, no "
      + "mail, no photograph. If somebody else may have seen it, pair anew."),
    el("div", { class: "handover" },
      paired.qr && code(paired.qr, `QR code of the seed for ${machine.name}`),
      el("div", null,
        el("p", null, "At the machine, run ", el("code", null, "bitspire-agent pair --seed-url -"),
          " and paste the text. The code holds the same text, for a scanner at the machine."),
        text,
        el("div", { class: "buttons" }, copier("Copy the seed", text),
          el("button", { type: "button", class: "quiet", click: done }, "Done: take it away")),
        hint("It goes when you leave this page, or as soon as the machine has used it."))),
    facts(["Token ends", time(paired.token_expires_at)], ["Machine's key", el("code", null, paired.spire_npub)],
      ["Key in the bunker", paired.bunker_key_name]),
    el("h3", null, "What was done"), steps(paired.steps));
}

const used = (machine) => (state) => {
  if (state.id !== machine.id || state.confirmation === "awaiting_session") return null;
  return `The seed ${state.revoked_at === null ? "was used" : "was revoked"}; it is gone from this page.`;
};

function request(page, machine, known) {
  const near = known.relays.some((relay) => LOOPBACK.test(relay));
  const inputs = [
    field({ name: "relays", label: "Relays, one a line", tag: "textarea", rows: Math.max(2, known.relays.length),
      value: known.relays.join("\n"), spellcheck: "false", autocomplete: "off",
      hint: "Where machine and service meet. They are those of this service." }),
    field({ name: "duration_hours", label: "Hours until it ends", inputmode: "numeric", value: HOURS,
      hint: "Before they are over, the machine has to be paired anew. 720 hours are 30 days." }),
    field({ name: "bunker_relay", label: "Relay to the bunker", autocomplete: "off", spellcheck: "false",
      placeholder: "the first of the relays", hint: "Only if the bunker listens somewhere else." }),
    field({ name: "allow_loopback", label: "Machine and service share one computer", type: "checkbox",
      hint: near ? "A relay above is an address of this computer alone: no machine elsewhere can reach it. "
        + "Tick this only for a trial on one computer; else set relay.url in the configuration."
        : "Allows relays such as ws://127.0.0.1, which no machine elsewhere can reach." }),
  ];
  const pair = async (typed) => {
    const relay = typed("bunker_relay").trim();
    const paired = await post(`/dca/machines/${machine.id}/pair`, {
      relays: typed("relays").split(/\s+/).filter(Boolean),
      duration_hours: typed("duration_hours", given),
      bunker_relay: relay === "" ? undefined : relay,
      allow_loopback: typed("allow_loopback") === "on",
      qr: true,
    });
    page.again("", seed(page, machine, paired), used(machine));
  };
  const button = machine.paired_at === null ? "Pair" : "Pair anew";
  return form(button, "", el("div", { class: "fields" }, inputs), pair, "Asking the bunker…");
}

function revocation(page, machine) {
  const again = machine.revoked_at !== null;
  const revoke = async () => {
    const { steps: done } = await post(`/dca/machines/${machine.id}/revoke`);
    const failed = done.filter((one) => !one.ok).length;
    const words = failed ? [el("p", { class: "notice bad" }, `${failed} of ${done.length} steps failed. Nothing `
      + "is signed for the machine here any more, but keys in the bunker may still be good: revoke again.")]
      : [el("p", null, "All of it was done.")];
    page.again(`${machine.name} is revoked.`, card(`Revoking ${machine.name}`, words, steps(done),
      el("button", { type: "button", class: "quiet", click: () => page.drop("") }, "Close")));
  };
  const words = again ? "Asks the bunker again to revoke all that is left of its keys."
    : "At once the machine may do nothing any more: its sessions and connections are closed, and its "
      + "keys in the bunker revoked. Open sales are held for you to look at. To use the machine again, "
      + "it has to be paired anew at its place.";
  return [hint(words), asked(again ? "Revoke again" : "Revoke…", `Revoke ${machine.name}?`,
    el("p", null, words), `Revoke ${machine.name}`, revoke)];
}

const attempts = (rows) => rows.length > 0 && el("details", null,
  el("summary", null, `Attempts to pair it (${rows.length})`), table("", [
    ["Number", (row) => row.number],
    ["Started", (row) => time(row.started_at)],
    ["Came to", (row) => [row.step.replaceAll("_", " "), small(row.error)]],
    ["Asked by", (row) => row.requested_by],
    ["Hours", (row) => row.duration_hours],
    ["Relays", (row) => row.relays.join(" ")],
    ["Key in the bunker", (row) => row.bunker_key_name],
  ], rows));

// Where the pairing stands and what may be done about it.
export function pairing(page, machine, known, tried) {
  const first = machine.paired_at === null || machine.revoked_at !== null;
  const operator = mine(known, machine);
  const missing = init(page, known, operator);
  if (missing) return missing;
  const anew = el("p", null, first
    ? "Makes a key for the machine in the bunker, and the seed with which the machine finds it."
    : "The pairing in force goes on until the new one is made; then its key is revoked. The machine "
      + "needs the new seed, and its digits are compared again.");
  const runs = may(known, "operator");
  return card("Pairing",
    facts(["Ends", expiry(machine)],
      ["Paired", machine.paired_at && time(machine.paired_at)],
      ["Confirmed", machine.confirmed_at && time(machine.confirmed_at)],
      ["Revoked", machine.revoked_at && time(machine.revoked_at)],
      ["Machine's key", machine.spire_npub && el("code", null, machine.spire_npub)],
      ["Key in the bunker", machine.bunker_spire_key_name]),
    runs && first && [anew, request(page, machine, known)],
    runs && !first && el("details", null, el("summary", null, "Pair anew"), anew, request(page, machine, known)),
    runs && machine.paired_at !== null && revocation(page, machine),
    attempts(tried));
}

// Only while somebody has to look: the digits are typed from the machine's own screen, not shown
// here, so that nobody confirms without having compared.
export function confirming(page, machine, known) {
  if (machine.confirmation !== "awaiting_confirmation") return null;
  const inputs = field({ name: "digits", label: "The eight digits on the machine's screen", required: true,
    inputmode: "numeric", autocomplete: "off", maxlength: 11, class: "digits", placeholder: "0000 0000" });
  const confirm = async (typed) => {
    const done = await post(`/dca/machines/${machine.id}/confirm`, { digits: typed("digits") });
    page.again(`${done.name} is in service.`);
  };
  return card("Confirm it",
    el("p", null, "The machine has used its seed and shows eight digits. Stand before it, or have somebody "
      + "you trust read them out. If they are not those of this pairing, somebody stands between."),
    may(known, "operator") ? form("Confirm", "", inputs, confirm) : hint("An operator can confirm it."));
}
