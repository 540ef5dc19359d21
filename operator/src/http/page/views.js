// What is shown under each address: each view asks the API and answers with what to show.
// `page.again(words)` shows the view anew, with words about what was done.

import { get, patch, post } from "./api.js";
import { fraction, msats, percent, sats, whole } from "./exact.js";
import { ago, badge, card, el, empty, facts, field, folded, form, now, short, table, time }
  from "./parts.js";

const ROWS = 50;
const WEEK = 7 * 86400;
const SILENT_AFTER = 900;

const PAIRING = {
  unpaired: ["idle", "Not paired"],
  awaiting_session: ["wait", "Paired, waits for the machine"],
  awaiting_confirmation: ["wait", "Compare the digits"],
  confirmed: ["good", "In service"],
  revoked: ["bad", "Revoked"],
};

const title = (words, ...more) =>
  el("div", { class: "title" }, el("h1", { tabindex: -1 }, words), more);

const states = (machine) => [
  badge(...(PAIRING[machine.confirmation] ?? ["idle", machine.confirmation])),
  machine.disabled_at && badge("bad", "Disabled"),
];

const disabled = (machine) => machine.disabled_at &&
  el("p", { class: "notice bad" }, "Disabled ", ago(machine.disabled_at), ": ",
    machine.disabled_reason ?? "no reason was given");

// Warns a week before the token ends, or in the last quarter of a shorter one.
function expiry(machine) {
  const ends = machine.bunker_token_expires_at;
  if (ends === null) return null;
  const left = Number(ends) - now();
  const life = Number(ends) - Number(machine.paired_at ?? ends);
  if (left <= 0) return el("span", { class: "bad" }, "expired ", ago(ends), ": pair anew");
  const near = left < (life > 0 ? Math.min(WEEK, life / 4) : WEEK);
  if (near) return el("span", { class: "warn" }, "ends ", ago(ends), ": pair anew in time");
  return ago(ends);
}

function seen(machine) {
  if (machine.last_seen_at === null) return "never";
  const silent = now() - Number(machine.last_seen_at) > SILENT_AFTER;
  return el("span", { class: silent && "warn" }, ago(machine.last_seen_at));
}

const fees = (machine) =>
  `${percent(machine.cash_in_fee_fraction)}\u00a0cash\u2011in, `
  + `${percent(machine.cash_out_fee_fraction)}\u00a0cash\u2011out`;

const summary = (machine) => el("li", { class: "card machine" },
  el("h2", null, el("a", { href: `#/machines/${machine.id}` }, machine.name)),
  el("p", { class: "place" }, machine.place || "no place given"),
  el("p", { class: "badges" }, states(machine)),
  disabled(machine),
  facts(
    ["Last seen", seen(machine)],
    ["Token", expiry(machine)],
    ["Currency", machine.fiat_code],
    ["Wallet", machine.wallet_id],
    ["Your fees", fees(machine)],
  ));

function adding(page, wallets) {
  if (wallets.length === 0) {
    return empty("Every wallet of the configuration has its machine. Add one under ",
      el("code", null, "[wallets]"), " and restart the daemon to add another machine.");
  }
  const inputs = [
    field({ name: "name", label: "Name", required: true, autocomplete: "off" }),
    field({ name: "place", label: "Place", autocomplete: "off" }),
    field({ name: "fiat_code", label: "Currency of its notes", hint: "It never changes.",
      required: true, maxlength: 3, size: 4, placeholder: "EUR", autocapitalize: "characters" }),
    field({ name: "wallet_id", label: "Lightning wallet", options: wallets }),
    field({ name: "in", label: "Your fee on cash-in (%)", hint: "Notes to Lightning.", inputmode: "decimal", value: "0" }),
    field({ name: "out", label: "Your fee on cash-out (%)", hint: "Lightning to notes.", inputmode: "decimal", value: "0" }),
  ];
  const add = async (typed) => {
    const added = await post("/dca/machines", {
      name: typed.name,
      place: typed.place,
      fiat_code: typed.fiat_code.trim().toUpperCase(),
      wallet_id: typed.wallet_id,
      cash_in_fee_fraction: fraction(typed.in),
      cash_out_fee_fraction: fraction(typed.out),
    });
    page.open(`machines/${added.id}`, `${added.name} is added.`);
  };
  return folded("Add a machine", form("Add machine", "", el("div", { class: "fields" }, inputs), add));
}

async function machines(page) {
  const [list, known] = await Promise.all([get("/dca/machines"), get("/operators")]);
  const taken = list.map((machine) => machine.wallet_id);
  const free = known.wallets.filter((wallet) => !taken.includes(wallet));
  return [
    title("Machines", el("p", { class: "count" }, `${list.length} in the fleet`)),
    list.length ? el("ul", { class: "fleet" }, list.map(summary))
      : empty("No machine yet. Add the first one below."),
    adding(page, free),
  ];
}

// Only to be compared with what stands on the machine: who can read both has it before them.
const digits = (machine) => machine.confirmation_digits && card("Compare the digits",
  el("p", null, "The machine's own screen must show these digits. If it shows others, somebody stands between you and it."),
  el("p", { class: "digits" }, machine.confirmation_digits.replace(/\B(?=(?:\d{4})+$)/g, " ")));

function trade(page, machine) {
  if (machine.disabled_at) {
    const enable = async () => {
      await post(`/dca/machines/${machine.id}/enable`);
      page.again(`${machine.name} may trade again.`);
    };
    return card("Trade", el("p", null, "New trade is stopped."), form("Enable", "", [], enable));
  }
  const reason = field({ name: "reason", label: "Reason, as the machine's page shows it", required: true });
  const disable = async (typed) => {
    await post(`/dca/machines/${machine.id}/disable`, { reason: typed.reason });
    page.again(`${machine.name} takes no new trade.`);
  };
  return card("Trade", el("p", null, "Disabling stops new trade; what is under way ends."),
    form("Disable", "danger", reason, disable));
}

const LIMITS = [
  ["max_cash_in_sats", "Most sats of one cash-in"],
  ["max_cash_in_hour_sats", "Most sats of cash-in an hour"],
  ["max_cash_in_day_sats", "Most sats of cash-in a day"],
  ["cashbox_capacity", "Notes that the cashbox holds"],
];

function settings(page, machine) {
  const limit = ([name, label]) => field({ name, label, inputmode: "numeric",
    value: machine[name] ?? "", placeholder: "default" });
  const inputs = [
    field({ name: "name", label: "Name", required: true, value: machine.name }),
    field({ name: "place", label: "Place", value: machine.place }),
    LIMITS.map(limit),
  ];
  const save = async (typed) => {
    const change = { name: typed.name, place: typed.place };
    for (const [name] of LIMITS) change[name] = whole(typed[name]);
    const saved = await patch(`/dca/machines/${machine.id}`, change);
    page.again(`${saved.name} is saved.`);
  };
  return folded("Name, place and limits",
    form("Save", "", el("div", { class: "fields" }, inputs.flat()), save));
}

const limits = (machine) => LIMITS.map(([name, label]) => {
  const value = machine[name];
  if (value === null) return [label, null];
  return [label, name === "cashbox_capacity" ? value : sats(value)];
});

// What went wrong in one part of a view stands there; the other parts are shown all the same.
const part = (heading, asked) => asked.catch((refusal) => {
  if (refusal.status === 401) throw refusal;
  return card(heading, el("p", { class: "error" }, refusal.message));
});

async function machine(page) {
  const id = encodeURIComponent(page.rest[0]);
  const [one, paid, log] = await Promise.all([
    get(`/dca/machines/${id}`),
    part("Settlements", settlementsOf(page, id, null)),
    part("Audit log", audited(`machine:${id}`)),
  ]);
  return [
    el("p", { class: "crumb" }, el("a", { href: "#/machines" }, "Machines")),
    title(one.name, el("p", { class: "badges" }, states(one))),
    disabled(one),
    el("div", { class: "columns" },
      card("About", facts(
        ["Place", one.place || null],
        ["Currency", one.fiat_code],
        ["Wallet", one.wallet_id],
        ["Your fees", fees(one)],
        ["Last seen", seen(one)],
        ["Token", expiry(one)],
        ["Paired", one.paired_at && time(one.paired_at)],
        ["Confirmed", one.confirmed_at && time(one.confirmed_at)],
        ["Revoked", one.revoked_at && time(one.revoked_at)],
        ["Key", one.spire_npub && el("code", null, one.spire_npub)],
        ["Bunker key", one.bunker_spire_key_name],
        ["Journal at", one.journal_seq],
        ...limits(one),
        ["Added", time(one.created_at)],
      )),
      el("div", null, digits(one), trade(page, one)),
    ),
    settings(page, one),
    paid,
    log,
  ];
}

const small = (words) => words && el("small", null, words);

const DIRECTION = { cash_in: "Notes to Lightning", cash_out: "Lightning to notes" };
const GOOD = { accepted: "good", late: "wait", under: "wait", rejected: "bad", misrouted: "bad" };

const settled = (names) => [
  ["Time", (row) => time(row.settled_at)],
  ...(names ? [["Machine", (row) => el("a", { href: `#/machines/${row.machine_id}` },
    names.get(row.machine_id) ?? `machine ${row.machine_id}`)]] : []),
  ["Direction", (row) => DIRECTION[row.direction] ?? row.direction],
  ["Status", (row) => [badge(GOOD[row.status] ?? "idle", row.status), small(row.reason)]],
  ["Notes", (row) => row.fiat ?? "–", "number"],
  ["On Lightning", (row) => sats(row.wire_sats), "number"],
  ["Principal", (row) => sats(row.principal_sats), "number"],
  ["Platform fee", (row) => sats(row.platform_fee_sats), "number"],
  ["Your fee", (row) => sats(row.operator_fee_sats), "number"],
  ["Owed", (row) => sats(row.owed_sats), "number"],
  ["Dispensed", (row) => row.dispense_outcome ?? "–"],
  ["Distribution", (row) => [row.distribution, small(row.hold_reason)]],
];

async function settlementsOf(page, id, names) {
  const before = page.query.get("before");
  const asked = new URLSearchParams({ limit: ROWS });
  if (id) asked.set("machine", id);
  if (before) asked.set("before", before);
  const rows = await get(`/dca/settlements?${asked}`);
  const here = id ? `#/machines/${id}` : "#/settlements";
  const last = rows[rows.length - 1];
  return el("section", { class: "card" },
    rows.length ? table(id ? "Settlements, newest first" : "Newest first", settled(names), rows)
      : [id && el("h2", null, "Settlements"), empty(before ? "There are no older ones."
        : "Nothing was paid yet. A payment stands here as soon as it is settled.")],
    el("p", { class: "pages" },
      before && el("a", { href: here }, "Newest"),
      rows.length === ROWS && el("a", { href: `${here}?before=${last.id}` }, "Older")));
}

async function settlements(page) {
  const list = await get("/dca/machines");
  const names = new Map(list.map((one) => [one.id, one.name]));
  return [title("Settlements"), await settlementsOf(page, null, names)];
}

async function rejected() {
  const rows = await get(`/dca/rejected?limit=${ROWS}`);
  const columns = [
    ["Time", (row) => time(row.at)],
    ["Reason", (row) => row.reason],
    ["Sender", (row) => short(row.sender)],
    ["Relay", (row) => row.relay ?? "–"],
    ["Event", (row) => short(row.event_id)],
    ["Detail", (row) => row.detail ?? "–"],
  ];
  return [
    title("Refused requests"),
    el("p", null, "What was sent to the service in a machine's way and was not answered."),
    el("section", { class: "card" }, rows.length ? table("Newest first", columns, rows)
      : empty("Nothing was refused.")),
  ];
}

function told(detail) {
  if (detail === null) return "–";
  if (typeof detail !== "object") return String(detail);
  const value = (v) => (v !== null && typeof v === "object" ? JSON.stringify(v) : String(v ?? "–"));
  return el("ul", { class: "detail" }, Object.entries(detail).map(([name, v]) =>
    el("li", null, el("b", null, name), ` ${value(v)}`)));
}

async function audited(subject) {
  const asked = new URLSearchParams({ limit: ROWS });
  if (subject) asked.set("subject", subject);
  const rows = await get(`/audit-log?${asked}`);
  const columns = [
    ["Time", (row) => time(row.at)],
    ["Who", (row) => short(row.actor)],
    ["Action", (row) => row.action],
    ["About", (row) => row.subject],
    ["Detail", (row) => told(row.detail)],
  ];
  return el("section", { class: "card" }, rows.length ? table(subject ? "Audit log, newest first" : "Newest first", columns, rows)
    : [subject && el("h2", null, "Audit log"), empty("Nothing was changed yet.")]);
}

const audit = async () => [title("Audit log"), await audited(null)];

async function simulator(page) {
  const balances = Object.entries(await get("/simulator/balances"));
  const columns = [
    ["Wallet", ([name]) => name],
    ["Balance", ([, held]) => (held.error ? el("span", { class: "error" }, held.error) : msats(held.msat)), "number"],
  ];
  const invoice = field({ name: "bolt11", label: "Invoice", tag: "textarea", rows: 4, required: true,
    spellcheck: "false", autocomplete: "off", hint: "As a machine shows it: lnbcrt…" });
  const amount = field({ name: "amount", label: "Sats", inputmode: "numeric", placeholder: "as the invoice says",
    hint: "Other than what the invoice says: too much, or too little." });
  const pay = async (typed) => {
    const sat = whole(typed.amount);
    const paid = await post("/simulator/pay", {
      bolt11: typed.bolt11.trim(),
      amount_msat: sat === null ? undefined : sat * 1000n,
    });
    page.again(`A customer paid ${msats(paid.paid_msat)}.`);
  };
  const reach = (reachable) => form(reachable ? "Bring it back" : "Cut it off", reachable ? "" : "danger", [],
    async () => {
      await post("/simulator/reachable", { reachable });
      page.again(reachable ? "The node answers." : "The node does not answer.");
    });
  return [
    title("Simulator"),
    el("p", null, "The configuration has simulated wallets. What happens here is no real money."),
    el("div", { class: "columns" },
      card("A customer pays", form("Pay the invoice", "", [invoice, amount], pay)),
      el("div", null,
        el("section", { class: "card" }, table("Balances", columns, balances)),
        card("The node", el("p", null, "As if the node lost the network, and found it again."),
          el("div", { class: "buttons" }, reach(false), reach(true))))),
  ];
}

export const views = { machines: (page) => (page.rest.length ? machine(page) : machines(page)),
  settlements, rejected, audit, simulator };
