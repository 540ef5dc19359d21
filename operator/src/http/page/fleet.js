// The machines: all of them, and one of them with what may be done about it.

import { get, patch, post, put } from "./api.js";
import { atMachine } from "./atmachine.js";
import { cassettes, fees, republishing } from "./documents.js";
import { fraction, percent, sats, whole } from "./exact.js";
import { field, form } from "./forms.js";
import { confirming, init, pairing } from "./pairing.js";
import { card, el, empty, facts, folded, part, time, title } from "./parts.js";
import { audited, settlementsOf } from "./reports.js";
import { rollouts } from "./rollout.js";
import { said, troubles } from "./said.js";
import { disabled, expiry, may, seen, states } from "./state.js";
import { verdicts } from "./verdicts.js";

const yours = (machine) =>
  `${percent(machine.cash_in_fee_fraction)}\u00a0cash\u2011in, `
  + `${percent(machine.cash_out_fee_fraction)}\u00a0cash\u2011out`;

const summary = (machine) => el("li", { class: "card machine" },
  el("h2", null, el("a", { href: `#/machines/${machine.id}` }, machine.name)),
  el("p", { class: "place" }, machine.place || "no place given"),
  el("p", { class: "badges" }, states(machine)),
  disabled(machine),
  troubles(machine),
  facts(
    ["Last seen", seen(machine)],
    ["Pairing", expiry(machine)],
    ["Currency", machine.fiat_code],
    ["Wallet", machine.wallet_id],
    ["Tags", machine.tags.length ? machine.tags.join(", ") : null],
    ["Your fees", yours(machine)],
  ));

function adding(page, known, taken) {
  const wallets = known.wallets.filter((wallet) => !taken.includes(wallet));
  if (wallets.length === 0) {
    return empty("Every wallet of the configuration has its machine. Add one under ",
      el("code", null, "[wallets]"), " and restart the daemon to add another machine.");
  }
  const several = known.operators.length > 1;
  const inputs = [
    several && field({ name: "operator_id", label: "Operator",
      options: known.operators.map((one) => [one.id, one.name]), value: known.operators[0].id }),
    field({ name: "name", label: "Name", autocomplete: "off" }),
    field({ name: "place", label: "Place", autocomplete: "off", hint: "May be left empty." }),
    field({ name: "fiat_code", label: "Currency of its notes", hint: "Three letters. It never changes.",
      maxlength: 3, placeholder: "EUR", autocapitalize: "characters", autocomplete: "off" }),
    field({ name: "wallet_id", label: "Lightning wallet", hint: "One that no other machine has.",
      options: wallets, value: wallets[0] }),
    field({ name: "cash_in_fee_fraction", label: "Your fee on cash-in (%)", hint: "Notes to Lightning.",
      inputmode: "decimal", autocomplete: "off", value: "0" }),
    field({ name: "cash_out_fee_fraction", label: "Your fee on cash-out (%)", hint: "Lightning to notes.",
      inputmode: "decimal", autocomplete: "off", value: "0" }),
    field({ name: "npub", label: "Key", placeholder: "npub1…", spellcheck: "false", autocomplete: "off",
      hint: "Leave it empty: pairing gives the machine its key." }),
  ];
  const add = async (typed) => {
    const npub = typed("npub").trim();
    const added = await post("/dca/machines", {
      operator_id: several ? typed("operator_id", BigInt) : undefined,
      name: typed("name"),
      place: typed("place"),
      fiat_code: typed("fiat_code").trim().toUpperCase(),
      wallet_id: typed("wallet_id"),
      npub: npub === "" ? undefined : npub,
      cash_in_fee_fraction: typed("cash_in_fee_fraction", fraction),
      cash_out_fee_fraction: typed("cash_out_fee_fraction", fraction),
    });
    page.open(`machines/${added.id}`, `${added.name} is added. Pair it next.`);
  };
  return folded("Add a machine", form("Add machine", "", el("div", { class: "fields" }, inputs), add));
}

async function machines(page) {
  const [list, known] = await Promise.all([get("/dca/machines"), get("/operators")]);
  return [
    title("Machines", el("p", { class: "count" }, `${list.length} in the fleet`)),
    known.operators.map((operator) => init(page, known, operator)),
    list.length ? el("ul", { class: "fleet" }, list.map(summary))
      : empty("No machine yet. Add the first one below."),
    list.length > 0 && await part("Fees for many machines", rollouts(page, known)),
    may(known, "operator") && adding(page, known, list.map((machine) => machine.wallet_id)),
  ];
}

function trade(page, machine) {
  if (machine.disabled_at) {
    const enable = async () => {
      await post(`/dca/machines/${machine.id}/enable`);
      page.again(`${machine.name} may trade again.`);
    };
    return card("Trade", el("p", null, "New trade is stopped."), form("Enable", "", [], enable));
  }
  const reason = field({ name: "reason", label: "Reason", autocomplete: "off", hint: "Shown wherever the machine is." });
  const disable = async (typed) => {
    await post(`/dca/machines/${machine.id}/disable`, { reason: typed("reason") });
    page.again(`${machine.name} takes no new trade.`);
  };
  return card("Trade", el("p", null, "Disabling stops new trade; what is under way ends."),
    form("Disable", "danger", reason, disable));
}

function tags(page, machine) {
  const save = async (typed) => {
    const given = typed("tags").split(/[\s,]+/).filter((tag) => tag !== "");
    await put(`/dca/machines/${machine.id}/tags`, { tags: given });
    page.again(`The tags of ${machine.name} are saved.`);
  };
  return folded("Tags", form("Save tags", "", field({ name: "tags", label: "Tags", autocomplete: "off",
    hint: "Groups of machines, for fees that go out in stages.", value: machine.tags.join(" ") }), save));
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
    field({ name: "name", label: "Name", value: machine.name }),
    field({ name: "place", label: "Place", value: machine.place }),
    LIMITS.map(limit),
  ];
  const save = async (typed) => {
    const change = { name: typed("name"), place: typed("place") };
    for (const [name] of LIMITS) change[name] = typed(name, whole);
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

async function machine(page) {
  const id = encodeURIComponent(page.rest[0]);
  const [one, known] = await Promise.all([get(`/dca/machines/${id}`), get("/operators")]);
  const runs = may(known, "operator");
  const [open, paired, priced, held, done, paid, log] = await Promise.all([
    part("To be decided", verdicts(page, one, known)),
    part("Pairing", get(`/dca/machines/${id}/pairings`).then((tried) => pairing(page, one, known, tried))),
    part("Fees", get("/dca/super-config").then((platform) => fees(page, one, known, platform))),
    part("Cassettes", get(`/dca/machines/${id}/cassettes`).then((held) => cassettes(page, one, known, held))),
    part("Done at the machine", atMachine(one)),
    part("Settlements", settlementsOf(page, id, null)),
    may(known, "owner") ? part("Audit log", audited(`machine:${id}`)) : null,
  ]);
  page.news(one);
  return [
    el("p", { class: "crumb" }, el("a", { href: "#/machines" }, "Machines")),
    title(one.name, el("p", { class: "badges" }, states(one))),
    disabled(one),
    troubles(one),
    confirming(page, one, known),
    open,
    el("div", { class: "columns" },
      el("div", null,
        card("About", facts(
          ["Place", one.place || null],
          ["Currency", one.fiat_code],
          ["Wallet", one.wallet_id],
          ["Last seen", seen(one)],
          ["Journal at", one.journal_seq],
          ...limits(one),
          ["Added", time(one.created_at)],
        )),
        said(one),
        paired,
        runs && trade(page, one)),
      el("div", null, priced, held, republishing(page, one, known))),
    runs && settings(page, one),
    runs && tags(page, one),
    done,
    paid,
    log,
  ];
}

// The list, or the machine that the address names.
export const fleet = (page) => (page.rest.length ? machine(page) : machines(page));
