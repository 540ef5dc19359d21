// Fees on their way to whoever earned them: what waits and why, the rules, and what a person decides.

import { get, post } from "./api.js";
import { percent, sats } from "./exact.js";
import { asked, field } from "./forms.js";
import { badge, card, el, empty, facts, hint, small, table, time, title } from "./parts.js";
import { may } from "./state.js";

const STATE = { errored: "bad", held: "wait", processing: "idle", pending: "idle" };
const LEG = { paid: "good", failed: "bad", bound: "wait", planned: "idle", void: "idle", by_hand: "idle",
  kept: "wait" };
const KIND = { super_fee: "Platform's fee", operator_split: "Operator's fee", dca: "Provider's sats" };

const why = () => field({ name: "reason", label: "Why, for the audit log", autocomplete: "off", required: true });

// A button that asks for a reason, and what it does with it.
function decided(page, words, means, path, more, done) {
  const decide = async (typed) => {
    await post(path, { ...more, reason: typed("reason") });
    page.again(done);
  };
  return asked(`${words}…`, `${words}?`, [el("p", null, means)], words, decide, [why()]);
}

const legs = (page, known) => [
  ["Part", (leg) => [KIND[leg.kind] ?? leg.kind, small(leg.lp_id !== null && `provider ${leg.lp_id}`)]],
  ["Amount", (leg) => sats(leg.amount_sats), "number"],
  ["To", (leg) => leg.to ?? (leg.lp_id === null ? "no wallet yet" : "kept for them")],
  ["State", (leg) => [badge(LEG[leg.state] ?? "idle", leg.state.replaceAll("_", " ")),
    small(leg.payment && leg.state === "bound" && `payment ${leg.payment}`), small(leg.detail)]],
  ["Tries", (leg) => leg.round, "number"],
  ["", (leg) => may(known, "owner") && (leg.state === "planned" || leg.state === "kept" || leg.state === "failed") && [
    decided(page, "Do not pay it", "Its sats stay in the machine's wallet; a provider has the fiat again.", `/dca/legs/${leg.id}/end`,
      { how: "void" }, "The leg is ended."),
    decided(page, "Paid by other means", "It is not paid again. A platform's or a provider's sats are then booked as the operator's.",
      `/dca/legs/${leg.id}/end`, { how: "by_hand" }, "The leg is ended.")]],
];

const last = (all) => all.filter((leg) =>
  !all.some((one) => one.position === leg.position && BigInt(one.round) > BigInt(leg.round)));

function open(page, known, names) {
  return (one) => card(`Settlement ${one.id}`,
    facts(["Machine", el("a", { href: `#/machines/${one.machine_id}` }, names.get(one.machine_id))],
      ["Settled", time(one.settled_at)],
      ["Distribution", [badge(STATE[one.distribution] ?? "idle", one.distribution),
        small(one.hold_reason?.replaceAll("_", " "))]],
      ["Platform fee", one.platform_fee_sats === null ? null : sats(one.platform_fee_sats)],
      ["Your fee", one.operator_fee_sats === null ? null : sats(one.operator_fee_sats)]),
    one.legs.length > 0 && table("Legs", legs(page, known), last(one.legs)),
    may(known, "operator") && one.distribution === "held" && decided(page, "Distribute it",
      "Do this after you have looked at what holds it. It is refused before the machine has reported the sale's end.",
      `/dca/settlements/${one.id}/release`, {}, "It is distributed now."),
    may(known, "operator") && one.distribution === "errored" && decided(page, "Try again",
      "Its wallet has said that the failed legs were not paid: a new payment is made for each.",
      `/dca/settlements/${one.id}/resume`, {}, "It is tried again now."));
}

const share = (one) => el("li", null, `${percent(one.fraction)} to ${Object.values(one.to).join("")}`);

const rules = (page, known, names) => [
  ["Rules", (row) => row.id, "number"],
  ["Whose fee", (row) => (row.machine_id ? `yours, of ${names.get(row.machine_id) ?? row.machine_id}`
    : row.lp_id ? `provider ${row.lp_id}'s sats` : { super: "the platform's", operator: "yours" }[row.scope])],
  ["Shares", (row) => (row.shares.length ? el("ul", null, row.shares.map(share)) : "none")],
  ["From", (row) => time(row.in_force_at)],
  ["Asked for by", (row) => row.actor],
  ["", (row) => (row.cancelled_at !== null ? badge("idle", "cancelled") : row.waits && [badge("wait", "does not count yet"),
    may(known, "owner") && asked("Cancel…", "Cancel this change?", [], "Cancel it", async () => {
      await post(`/dca/rules/${row.id}/cancel`);
      page.again("It is cancelled.");
    })])],
];

export async function distribution(page) {
  const [known, machines, waiting, sets] = await Promise.all(
    ["/operators", "/dca/machines", "/dca/distribution", "/dca/rules"].map(get));
  const names = new Map(machines.map((one) => [one.id, one.name]));
  return [
    title("Distribution"),
    waiting.length ? waiting.map(open(page, known, names)) : card("Under way", empty("Every fee is where it belongs.")),
    card("Rules", sets.length ? table("Newest first", rules(page, known, names), sets) : empty("None: fees stay where they are."),
      hint("Change them with ", el("code", null, "bitspire-operator distribution set-rules"),
        "; the operator's key signs, and the change counts after a delay.")),
  ];
}
