// Liquidity providers: all of them, and one of them with what the operator does with them.

import { get, post, put } from "./api.js";
import { given, sats, shift } from "./exact.js";
import { asked, field, form, sure } from "./forms.js";
import { badge, card, el, empty, facts, folded, hint, short, small, table, time, title } from "./parts.js";
import { may } from "./state.js";

const STATE = { pending: "wait", confirmed: "good", cancelled: "idle" };
const LEG = { paid: "good", kept: "wait", bound: "wait", failed: "bad" };
const MODES = [["flow", "With every sale, as much as there is"], ["fixed", "At most so much a day"]];

const money = (minor, lp) => `${shift(minor, -Number(lp.decimals))} ${lp.currency}`;
// What was typed, in minor units. A comma is refused: it may part thousands.
const minor = (lp) => (typed) => given(shift(typed, Number(lp.decimals)));
const how = (lp) => (lp.mode === "fixed" ? `at most ${money(lp.daily_limit_minor, lp)} a day`
  : "with every sale");
const where = (lp, names) => (lp.everywhere ? `every machine in ${lp.currency}`
  : lp.machines.map((id) => names.get(id) ?? `machine ${id}`).join(", ") || "nowhere yet");

const rows = (names) => [
  ["Provider", (lp) => [el("a", { href: `#/providers/${lp.id}` }, lp.name),
    lp.disabled_at !== null && badge("idle", "takes no part")]],
  ["Left", (lp) => lp.left, "number"],
  ["Becomes sats", how],
  ["Takes part at", (lp) => where(lp, names)],
  ["Sats not paid yet", (lp) => sats(lp.sats), "number"],
  ["To", (lp) => lp.to ?? "kept for them"],
];

const limit = (value) => field({ name: "daily_limit", label: "A day at most", inputmode: "decimal",
  autocomplete: "off", value, hint: "Of the second way only." });
const modes = (value) => field({ name: "mode", label: "Their fiat becomes sats", options: MODES, value });
const terms = (typed, lp) => ({ mode: typed("mode"),
  daily_limit_minor: typed("mode") === "fixed" ? typed("daily_limit", minor(lp)) : undefined });

function adding(page, known) {
  const several = known.operators.length > 1;
  const add = async (typed) => {
    const added = await post("/dca/lps", {
      operator_id: several ? typed("operator_id", BigInt) : undefined,
      name: typed("name"), currency: typed("currency").trim().toUpperCase(), mode: "flow",
    });
    page.open(`providers/${added.id}`, `${added.name} is registered. Enrol them next.`);
  };
  return folded("Register a provider", form("Register", "", el("div", { class: "fields" },
    several && field({ name: "operator_id", label: "Operator",
      options: known.operators.map((one) => [one.id, one.name]), value: known.operators[0].id }),
    field({ name: "name", label: "Name", autocomplete: "off" }),
    field({ name: "currency", label: "Currency of their fiat", maxlength: 3, placeholder: "EUR",
      autocapitalize: "characters", autocomplete: "off", hint: "Three letters. It never changes." })), add));
}

async function all(page) {
  const [known, machines, list] = await Promise.all(["/operators", "/dca/machines", "/dca/lps"].map(get));
  const names = new Map(machines.map((one) => [one.id, one.name]));
  return [
    title("Liquidity providers"),
    card("Providers", list.length ? table("", rows(names), list)
      : empty("None: what is sold for notes stays in the machines' wallets.")),
    may(known, "owner") && adding(page, known),
  ];
}

// What goes over the counter: a form of an amount and a reference.
const cash = (lp, heading, button, act) => folded(heading, form(button, "", el("div", { class: "fields" },
  field({ name: "amount", label: `Amount (${lp.currency})`, inputmode: "decimal", autocomplete: "off" }),
  field({ name: "reference", label: "Reference", autocomplete: "off",
    hint: "A receipt's number, say. The same one again is the same payment." })),
(typed) => act({ amount_minor: typed("amount", minor(lp)), currency: lp.currency, reference: typed("reference") })));

const depositing = (page, lp) => cash(lp, "Record a deposit", "Record", async (what) => {
  await post(`/dca/lps/${lp.id}/deposits`, what);
  page.again("It is recorded, and counts once it is confirmed.");
});

function returning(page, lp) {
  const place = el("div");
  const ask = (what) => {
    const dialog = sure(`Give ${money(what.amount_minor, lp)} back to ${lp.name}?`,
      [el("p", null, "You have given it back. It is theirs no more, and becomes no sats.")],
      "It was given back", async () => {
        await post(`/dca/lps/${lp.id}/return`, what);
        page.again("It is recorded.");
      });
    place.replaceChildren(dialog);
    dialog.showModal();
  };
  return [cash(lp, "Give fiat back", "Give back…", ask), place];
}

const deposits = (page, lp, known) => [
  ["Deposit", (one) => one.id, "number"],
  ["What", (one) => [one.kind === "return" ? "given back" : "deposit", small(one.reference)]],
  ["Amount", (one) => one.amount, "number"],
  ["State", (one) => [badge(STATE[one.state] ?? "idle", one.state), small(one.ended_by)]],
  ["Recorded", (one) => [time(one.created_at), small(one.actor)]],
  ["", (one) => one.state === "pending" && [
    may(known, "owner") && asked("Confirm…", `Confirm ${one.amount}?`,
      [el("p", null, "You have it. From now on sats are paid for it.")], "Confirm it", async () => {
        await post(`/dca/lp-deposits/${one.id}/confirm`);
        page.again("It is confirmed.");
      }),
    may(known, "operator") && asked("Cancel…", `Cancel ${one.amount}?`, [], "Cancel it", async () => {
      await post(`/dca/lp-deposits/${one.id}/cancel`);
      page.again("It is cancelled.");
    })]],
];

const shares = (lp, names) => [
  ["Settlement", (one) => one.settlement_id, "number"],
  ["Machine", (one) => names.get(one.machine_id) ?? one.machine_id],
  ["Sats", (one) => sats(one.sats), "number"],
  ["For", (one) => money(one.minor, lp), "number"],
  ["State", (one) => one.state && badge(LEG[one.state] ?? "idle", one.state.replaceAll("_", " "))],
  ["Payment", (one) => short(one.payment_hash)],
  ["When", (one) => time(one.at)],
];

function enrolling(page, lp, machines) {
  const own = machines.filter((one) => one.fiat_code === lp.currency);
  const places = [["", `Every machine in ${lp.currency}`], ...own.map((one) => [one.id, one.name])];
  const at = (typed) => ({ machine_id: typed("machine", (id) => (id === "" ? undefined : BigInt(id))) });
  const place = () => field({ name: "machine", label: "At", options: places, value: "" });
  const act = (what, done) => async (typed) => {
    await post(`/dca/lps/${lp.id}/${what}`, at(typed));
    page.again(done);
  };
  return folded("Enrol", form("Enrol", "", place(), act("enrol", "The provider takes part there.")),
    form("End the enrolment", "danger", place(), act("leave", "The provider takes no part there any more.")));
}

async function one(page, id) {
  const [known, machines, lp] = await Promise.all(["/operators", "/dca/machines", `/dca/lps/${id}`].map(get));
  const names = new Map(machines.map((each) => [each.id, each.name]));
  const owner = may(known, "owner");
  const off = lp.disabled_at !== null;
  const setTerms = async (typed) => {
    await put(`/dca/lps/${lp.id}/terms`, terms(typed, lp));
    page.again("It counts from the next sale on.");
  };
  const settle = async (typed) => {
    await post(`/dca/lps/${lp.id}/settle`, { sats: BigInt(lp.kept_sats), reason: typed("reason") });
    page.again("What was kept is settled.");
  };
  const turn = async () => {
    await post(`/dca/lps/${lp.id}/${off ? "enable" : "disable"}`);
    page.again(off ? "The provider takes part again." : "The provider takes no part.");
  };
  const most = lp.daily_limit_minor === null ? null : money(lp.daily_limit_minor, lp);
  return [
    title(lp.name, off && badge("idle", "takes no part")),
    card("Balance", facts(["Left", lp.left], ["Not confirmed", money(lp.pending_minor, lp)],
      ["Became sats today", money(lp.used_today_minor, lp)], ["A day at most", most],
      ["Sats not paid yet", sats(lp.sats)], ["Of these kept for them", sats(lp.kept_sats)],
      ["Takes part at", where(lp, names)], ["To", lp.to ?? "kept for them in the machines' wallets"]),
    hint("Where their sats go is changed with ", el("code", null,
      `bitspire-operator distribution set-rules --lp ${lp.id}`), "; the operator's key signs, and it counts after a delay."),
    owner && lp.kept_sats !== "0" && asked("Settle by hand…", `Settle ${sats(lp.kept_sats)}?`,
      [el("p", null, "You have paid it by other means. The sats in the machines' wallets are then yours.")],
      "It is paid", settle, [field({ name: "reason", label: "How it was paid", autocomplete: "off", required: true })]),
    owner && asked(off ? "Take part again…" : "Take no part…", off ? "Take part again?" : "Take no part?",
      [el("p", null, "What they have left stays theirs.")], "Do it", turn)),
    card("Deposits", lp.deposits.length ? table("Newest first", deposits(page, lp, known), lp.deposits)
      : empty("None yet.")),
    may(known, "operator") && depositing(page, lp),
    owner && returning(page, lp),
    owner && folded("How their fiat becomes sats", form("Save", "", el("div", { class: "fields" }, modes(lp.mode),
      limit(lp.daily_limit_minor === null ? "" : shift(lp.daily_limit_minor, -Number(lp.decimals)))), setTerms)),
    owner && enrolling(page, lp, machines),
    card("Shares of sales", lp.shares.length ? table("Newest first", shares(lp, names), lp.shares)
      : empty("None yet.")),
  ];
}

export const providers = (page) => (page.rest.length ? one(page, page.rest[0]) : all(page));
