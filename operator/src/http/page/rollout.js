// Fees for many machines: what would change where, then stage after stage.

import { get, post } from "./api.js";
import { fraction, percent, whole } from "./exact.js";
import { field, form } from "./forms.js";
import { badge, card, el, folded, hint, small, table, time } from "./parts.js";
import { may } from "./state.js";

const KIND = { running: "wait", done: "good", halted: "bad", stopped: "idle" };

const listed = (text) => text.split(/[\s,]+/).filter((tag) => tag !== "");

const pair = (fees) => `${percent(fees.cash_in_fee_fraction)} in, ${percent(fees.cash_out_fee_fraction)} out`;

const change = ({ cash_in_fee_fraction, cash_out_fee_fraction }) =>
  [["cash-in", cash_in_fee_fraction], ["cash-out", cash_out_fee_fraction]]
    .filter(([, fee]) => fee !== null).map(([way, fee]) => `${way} to ${percent(fee)}`).join(", ");

const wanted = (typed) => {
  const fee = (name) => (typed(name).trim() === "" ? undefined : typed(name, fraction));
  return {
    stages: listed(typed("stages")),
    rest: typed("rest") !== "",
    cash_in_fee_fraction: fee("cash_in_fee_fraction"),
    cash_out_fee_fraction: fee("cash_out_fee_fraction"),
    wait_minutes: typed("wait_minutes", whole) ?? undefined,
  };
};

const plan = (machines) => table("What would change", [
  ["Stage", (row) => (BigInt(row.stage) + 1n).toString(), "number"],
  ["Machine", (row) => [row.name, small(row.place)]],
  ["From", (row) => pair(row.from)],
  ["To", (row) => [pair(row.to), small(row.refused), small(!row.waits && "not waited for: it has no key")]],
], machines);

const inputs = () => el("div", { class: "fields" },
  field({ name: "stages", label: "Tags, one stage each", autocomplete: "off", placeholder: "trial north",
    hint: "In this order. The next stage begins when every machine of the one before applies its fees." }),
  field({ name: "rest", label: "Then all other machines", type: "checkbox", value: "yes" }),
  field({ name: "cash_in_fee_fraction", label: "Cash-in (%)", hint: "Empty: it stays.", inputmode: "decimal", autocomplete: "off" }),
  field({ name: "cash_out_fee_fraction", label: "Cash-out (%)", hint: "Empty: it stays.", inputmode: "decimal", autocomplete: "off" }),
  field({ name: "wait_minutes", label: "Minutes that each machine has", inputmode: "numeric", autocomplete: "off",
    placeholder: "15", hint: "A machine that does not say in time that it applies its fees halts the rest." }));

function one(page, known, rollout) {
  const stop = async () => {
    await post(`/dca/rollouts/${rollout.id}/stop`);
    page.again("The roll-out is stopped. What lies behind it stays.");
  };
  const columns = [
    ["Stage", (row) => (BigInt(row.stage) + 1n).toString(), "number"],
    ["Machine", (row) => el("a", { href: `#/machines/${row.machine_id}` }, row.name)],
    ["From", (row) => pair(row.from)],
    ["Written", (row) => (row.written_at === null ? "–" : time(row.written_at))],
    ["Applied", (row) => (row.applied_at !== null ? time(row.applied_at) : row.waits ? "–" : "not waited for")],
  ];
  return el("section", { class: "rollout" },
    el("p", null, badge(KIND[rollout.state] ?? "idle", rollout.state), " ", time(rollout.created_at),
      `: ${change(rollout)}`),
    rollout.reason && el("p", { class: "error" }, rollout.reason),
    table("", columns, rollout.machines),
    rollout.state === "running" && may(known, "operator") && form("Stop it", "danger", [], stop));
}

// The card of the fleet: a form that shows what would change, and what is on its way.
export async function rollouts(page, known) {
  const all = await get("/dca/rollouts");
  const running = all.some((rollout) => rollout.state === "running");
  const look = async (typed) => {
    const wish = wanted(typed);
    const { machines } = await post("/dca/fees/preview", wish);
    const begin = async () => {
      await post("/dca/rollouts", wish);
      page.again("The roll-out is on its way.");
    };
    const fits = machines.length > 0 && machines.every((machine) => machine.refused === null);
    page.again("", card("Fees for many machines",
      machines.length ? plan(machines) : hint("No machine's fees would change."),
      fits ? form("Begin", "", [], begin)
        : machines.length > 0 && el("p", { class: "error" }, "Nothing can be changed while some machine refuses it.")));
  };
  const shown = all.slice(0, 3).map((rollout) => one(page, known, rollout));
  // in sight, and not folded open: that would keep the page from being brought up to date
  if (running) {
    return card("Fees for many machines",
      hint("A roll-out is on its way; the next one can begin when it has ended."), shown);
  }
  return folded("Fees for many machines",
    may(known, "operator") && form("Show what would change", "", inputs(), look), shown);
}
