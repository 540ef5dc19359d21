// What a machine is told in documents: fees and cassettes, and how far each has come.

import { post, put } from "./api.js";
import { fraction, given, grouped, percent, shift, sum, times, whole } from "./exact.js";
import { field, form } from "./forms.js";
import { badge, card, el, empty, facts, hint, short, small, table, time } from "./parts.js";
import { may } from "./state.js";

const LIGHTS = [
  ["wanted", "wanted_at", "Wanted", "written down here"],
  ["published", "published_at", "Published", "signed by the operator's key"],
  ["relay_acked", "relay_acked_at", "Acknowledged", "a relay has it"],
  ["applied", "applied_at", "Applied", "the machine says so"],
];

// Four lights, each with its time.
function lights(document, until) {
  if (document === null) return hint(`No document yet: there is one as soon as ${until}.`);
  const reached = LIGHTS.findIndex(([light]) => light === document.light);
  return [
    el("ol", { class: "lights" }, LIGHTS.map(([, at, name, means], n) => {
      const lit = n <= reached;
      return el("li", { class: lit ? "lit" : null },
        el("b", null, name), el("span", null, document[at] === null ? (lit ? means : "not yet") : time(document[at])),
        small(means));
    })),
    facts(["Signed by", document.signed_by && short(document.signed_by)],
      ["Event", document.event_id && short(document.event_id)],
      ["In force on the machine", document.in_force && [short(document.in_force), " signed by ",
        short(document.in_force_signed_by)]]),
    !document.on_machine && el("p", { class: "warn" }, document.in_force === null ? "Not yet on the machine."
      : "Not yet on the machine, which goes by an older version."),
    document.reason !== null && el("p", { class: "error" },
      `Not published after ${document.attempts} attempts, and tried again: ${document.reason}`),
  ];
}

// What became of a write's documents.
const outcome = (publish) => publish.state === "published" ? "A relay has it."
  : `It waits to be published${publish.reason ? `: ${publish.reason}` : "."}`;

const inputs = (of) => el("div", { class: "fields" },
  field({ name: "cash_in_fee_fraction", label: "Cash-in (%)", hint: "Notes to Lightning.",
    inputmode: "decimal", autocomplete: "off", value: shift(of.cash_in_fee_fraction, 2) }),
  field({ name: "cash_out_fee_fraction", label: "Cash-out (%)", hint: "Lightning to notes.",
    inputmode: "decimal", autocomplete: "off", value: shift(of.cash_out_fee_fraction, 2) }));

const typedFees = (typed) => ({
  cash_in_fee_fraction: typed("cash_in_fee_fraction", fraction),
  cash_out_fee_fraction: typed("cash_out_fee_fraction", fraction),
});

export function fees(page, machine, known, platform) {
  const rows = [["Cash-in", "cash_in_fee_fraction"], ["Cash-out", "cash_out_fee_fraction"]];
  const save = async (typed) => {
    const saved = await put(`/dca/machines/${machine.id}/fees`, typedFees(typed));
    page.again(`The fees of ${saved.name} are saved. ${outcome(saved.publish)}`);
  };
  return card("Fees",
    table("", [
      ["Direction", ([name]) => name],
      ["Yours", ([, at]) => percent(machine[at]), "number"],
      ["Platform's", ([, at]) => percent(platform[at]), "number"],
      ["Customer pays", ([, at]) => percent(sum(machine[at], platform[at])), "number"],
    ], rows),
    lights(machine.documents.fees, "the machine is paired"),
    may(known, "operator") && el("details", null, el("summary", null, "Change your fees"),
      form("Save fees", "", inputs(machine), save)));
}

export function platformFees(page, known, platform) {
  const save = async (typed) => {
    const saved = await put("/dca/super-config", typedFees(typed));
    const told = saved.documents === "1" ? "1 machine is" : `${saved.documents} machines are`;
    page.again(`The platform's fees are saved; ${told} told. ${saved.documents === "0" ? "" : outcome(saved.publish)}`);
  };
  return card("The platform's fees",
    el("p", null, "They are part of every sale on every machine, beside each operator's own."),
    facts(["Cash-in", percent(platform.cash_in_fee_fraction)], ["Cash-out", percent(platform.cash_out_fee_fraction)],
      ["Paid to the wallet", platform.wallet_id], ["Changed", platform.updated_at === "0" ? null : time(platform.updated_at)]),
    may(known, "super") ? el("details", null, el("summary", null, "Change the platform's fees"),
      form("Save the platform's fees", "", inputs(platform), save))
      : hint("Only the keeper of this instance can change them."));
}

// Sends the documents out again.
export function republishing(page, machine, known) {
  if (!may(known, "operator") || machine.spire_npub === null || machine.revoked_at !== null) return null;
  const publish = async () => {
    await post(`/dca/machines/${machine.id}/republish`);
    page.again(`The documents of ${machine.name} are published again.`);
  };
  return card("Documents",
    el("p", null, "Publishes fees and cassettes again, as they are wanted now: for a machine or a relay "
      + "that has lost them."),
    form("Publish again", "quiet", [], publish, "Publishing…"));
}

// Every bay that either side knows.
function bays(held) {
  const by = (list) => new Map(list.map((bay) => [bay.bay, bay]));
  const [ours, machines] = [by(held.declared), by(held.reported)];
  const all = [...new Set([...ours.keys(), ...machines.keys()])].sort((a, b) => Number(a) - Number(b));
  return all.map((bay) => {
    const [own, its] = [ours.get(bay), machines.get(bay)];
    return {
      bay,
      denomination: own?.denomination ?? its?.denomination ?? null,
      ours: own?.count ?? null,
      updated: own?.updated_at ?? null,
      machines: its?.count ?? null,
      recycled: its?.recycled ?? null,
      differs: held.differences.some((one) => one.bay === bay),
      other: own && its && own.denomination !== its.denomination ? its.denomination : null,
    };
  });
}

const notes = (count) => (count === null ? "–" : grouped(count));

const holdings = (machine, held, rows) => table("", [
  ["Bay", (row) => row.bay],
  ["Note", (row) => [`${row.denomination ?? "–"} ${machine.fiat_code}`,
    small(row.other && `the machine says ${row.other}`)]],
  ["Entered here", (row) => [notes(row.ours), small(row.updated && time(row.updated))], "number"],
  ["In the machine", (row) => [notes(row.machines), row.differs && badge("wait", "differs"),
    small(row.recycled && `${grouped(row.recycled)} came from customers`)], "number"],
  ["Worth", (row) => (row.machines === null || row.denomination === null ? "–"
    : `${grouped(times(row.machines, row.other ?? row.denomination))} ${machine.fiat_code}`), "number"],
], rows);

const did = (change) => change.set === null
  ? (change.delta.startsWith("-") ? `${change.delta.slice(1)} taken out` : `${change.delta} put in`)
  : `counted ${change.set}`;

const waiting = (held) => held.open_changes.length > 0 && table("Not yet acknowledged by the machine", [
  ["Time", (row) => time(row.created_at)],
  ["Bay", (row) => row.bay],
  ["Change", (row) => did(row)],
  ["Reason", (row) => row.reason || "–"],
  ["By", (row) => row.actor],
], held.open_changes);

const ACTIONS = [["", "No change"], ["add", "Put in"], ["take", "Take out"], ["set", "Counted: it holds"]];

const group = (legend, ...inputs) =>
  el("fieldset", null, el("legend", null, legend), el("div", { class: "bay" }, inputs));

const line = (machine, row) => group(`Bay ${row.bay}, ${row.denomination ?? "?"} ${machine.fiat_code}`,
  field({ name: `action-${row.bay}`, label: "What", options: ACTIONS, value: "" }),
  field({ name: `notes-${row.bay}`, label: "Notes", inputmode: "numeric", autocomplete: "off" }));

const newBay = (machine) => el("details", null, el("summary", null, "A bay that is not listed"),
  group("New bay",
    field({ name: "bay-new", label: "Bay", inputmode: "numeric", autocomplete: "off" }),
    field({ name: "note-new", label: `Note, in ${machine.fiat_code}`, inputmode: "numeric", autocomplete: "off" }),
    field({ name: "notes-new", label: "Notes that it holds", inputmode: "numeric", autocomplete: "off" })));

function wish(typed, row) {
  const action = typed(`action-${row.bay}`);
  const count = typed(`notes-${row.bay}`, (text) => {
    if (action !== "") return given(text);
    if (whole(text) !== null) throw new Error("say what was done with these notes");
    return null;
  });
  if (count === null) return null;
  const { bay } = row;
  if (action === "set") return { bay, set: count };
  return { bay, delta: action === "take" ? -count : count };
}

function added(typed) {
  const bay = typed("bay-new", whole);
  if (bay === null) return null;
  return { bay: bay.toString(), denomination: typed("note-new", given), set: typed("notes-new", given) };
}

export function cassettes(page, machine, known, held) {
  const rows = bays(held);
  const change = async (typed) => {
    const wishes = [...rows.map((row) => wish(typed, row)), added(typed)].filter((one) => one !== null);
    const done = await post(`/dca/machines/${machine.id}/cassettes`, {
      bays: wishes, reason: typed("reason"), base_seq: BigInt(held.base_seq),
    });
    page.again(`The cassettes of ${machine.name} are written down. ${outcome(done.publish)}`);
  };
  const reason = field({ name: "reason", label: "Reason", autocomplete: "off", maxlength: 200,
    placeholder: "weekly refill", hint: "Stands in the audit log and in the machine's journal." });
  return card("Cassettes",
    rows.length ? holdings(machine, held, rows) : empty("No bay is known yet."),
    hint(held.reported_at === null ? "The machine has not told its own counts yet."
      : ["In the machine: by its own ledger, which knows its sales, as it told at ", time(held.reported_at),
        ". Entered here: by the last refill or count of this page."]),
    waiting(held),
    lights(machine.documents.cassettes, "a bay is written down"),
    may(known, "collector") && el("details", null, el("summary", null, "Refill or count"),
      form("Write it down", "", [rows.map((row) => line(machine, row)), newBay(machine), reason], change)));
}
