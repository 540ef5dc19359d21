// Sales that cannot end by themselves: what the machine knows of each, and what a person decides.

import { get, post } from "./api.js";
import { given, sats } from "./exact.js";
import { asked, field } from "./forms.js";
import { badge, card, el, facts, hint, short, small, table, time } from "./parts.js";
import { may } from "./state.js";

// Name, button, and what it means in money and notes.
const OWED = ["owed", "Owed to the customer",
  "No more notes go out. What is missing, with its share of the fee, becomes a debt that the customer claims "
  + "with their code. Whoever has the notes and is owed them as well is paid twice."];
const SETTLED = ["settled", "The customer has everything",
  "Nothing is owed any more, and the fees are distributed. A customer who got nothing has no claim after this."];
const REST = ["dispense_rest", "Give the rest now",
  "The notes come out at once, for whoever stands at the machine. Notes in doubt that did come out are given a "
  + "second time."];
const RESUME = ["resume", "Go on now",
  "The notes come out at once, for whoever stands at the machine: do this only while you speak with the customer."];
const BREAKER = ["close_breaker", "Close the breaker",
  "Notes go out again. An open breaker may mean that somebody is emptying the machine."];
const TAKEN = ["owed", "The machine has the note",
  "The note in doubt counts as taken and is paid for."];
const NOT_TAKEN = ["settled", "The machine does not have the note",
  "The note in doubt is not paid for. A customer whose note it was has no claim after this."];

const LAST = "Count the bays, and look into the reject bin and at the exit before: this cannot be taken back.";

function choices(sale) {
  if (sale.direction === "cash_in") return [TAKEN, NOT_TAKEN];
  if (sale.state === "invoiced") return [OWED];
  return sale.state === "paid_waiting" ? [OWED, SETTLED, REST, RESUME] : [OWED, SETTLED, REST];
}

function button(page, machine, sale, [verdict, words, means]) {
  const counts = sale?.state === "uncertain" && sale.direction === "cash_out" && verdict !== "settled";
  const amount = counts && field({ name: "amount_minor", label: "What the customer did not get, in minor units",
    inputmode: "numeric", autocomplete: "off", hint: `2000 is 20.00. At most ${sale.rest_minor}: ${sale.rest}.` });
  const decide = async (typed) => {
    await post(`/dca/machines/${machine.id}/verdict`, { verdict, txid: sale?.txid,
      amount_minor: counts ? typed("amount_minor", given) : undefined });
    page.again(`It is signed. ${machine.name} carries it out as soon as it hears of it.`);
  };
  return asked(`${words}…`, `${words}?`, [el("p", null, means), el("p", { class: "warn" }, LAST)], words, decide,
    amount || []);
}

const stated = (report) => el("li", null, badge(report.outcome === "uncertain" ? "bad" : "idle", report.outcome), " ",
  Object.entries(report.bays).map(([bay, notes]) => `bay ${bay}: ${notes.presented} presented, `
    + (notes.picked === null ? `up to ${notes.requested} gone` : `${notes.picked} gone`)).join("; "),
  small(time(report.at)));

const undecided = (page, machine, known, live) => (sale) => el("li", null,
  el("h3", null, sale.direction === "cash_in" ? "Cash-in" : "Cash-out", " ", short(sale.txid)),
  facts(
    ["State", sale.state.replaceAll("_", " ")],
    ["Opened", time(sale.since)],
    ["Amount", sale.amount],
    ["Paid", sale.wire_sats === null ? null : sats(sale.wire_sats)],
    ["Missing at most", sale.rest],
    ["Notes in doubt", sale.unknown],
    ["It says", sale.evidence],
  ),
  sale.reports.length > 0 && el("ul", null, sale.reports.map(stated)),
  live.has(sale.txid) ? hint("It is decided; the machine has not carried it out yet.")
    : may(known, "operator") && el("div", { class: "buttons" },
      choices(sale).map((choice) => button(page, machine, sale, choice))));

const STATE = { live: "wait", used: "good", moot: "idle", lapsed: "bad" };

const columns = [
  ["Decided", (row) => [time(row.created_at), small(row.actor)]],
  ["Sale", (row) => short(row.txid)],
  ["Verdict", (row) => [row.verdict.replaceAll("_", " "), row.verdict === "owed" && small(row.amount)]],
  ["Stands", (row) => [badge(STATE[row.state] ?? "idle", row.state),
    row.state === "live" && small(["until ", time(row.not_after)])]],
];

// What there is to decide about a machine; nothing where there is nothing and was nothing.
export async function verdicts(page, machine, known) {
  const found = await get(`/dca/machines/${machine.id}/verdicts`);
  const live = new Set(found.given.filter((one) => one.state === "live").map((one) => one.txid));
  if (!found.open.length && !found.given.length && !found.breaker_open) return null;
  return card("To be decided",
    found.open.length ? el("ul", { class: "undecided" }, found.open.map(undecided(page, machine, known, live)))
      : hint("No sale waits for a decision."),
    found.breaker_open && !live.has(null) && may(known, "operator")
      && el("div", { class: "buttons" }, button(page, machine, null, BREAKER)),
    found.given.length > 0 && table("Decided so far", columns, found.given));
}
