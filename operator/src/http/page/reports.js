// What is only read: settlements, refused requests, the audit log.

import { get } from "./api.js";
import { sats } from "./exact.js";
import {
  ago, badge, card, el, empty, facts, folded, now, short, small, table, time, title,
} from "./parts.js";

const ROWS = 50;

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

export async function settlementsOf(page, id, names) {
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

export async function settlements(page) {
  const list = await get("/dca/machines");
  const names = new Map(list.map((one) => [one.id, one.name]));
  return [title("Settlements"), await settlementsOf(page, null, names)];
}

export async function rejected() {
  const rows = await get(`/dca/rejected?limit=${ROWS}`);
  const columns = [
    ["Reason", (row) => row.reason],
    ["How often", (row) => row.count, "number"],
    ["First", (row) => time(row.first_at)],
    ["Last", (row) => time(row.last_at)],
    ["Sender", (row) => [row.sender ? short(row.sender) : "several",
      small(row.verified ? "signed" : "so it says")]],
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

const STATE = { connected: "good", connecting: "wait", resting: "bad" };
const before = (seconds) => (seconds === null ? "–" : ago(now() - Number(seconds)));

const connections = [
  ["For", (row) => row.for],
  ["State", (row) => [badge(STATE[row.state] ?? "idle", row.state),
    small(row.failures !== "0" && `${row.failures} failures in a row`)]],
  ["Connected", (row) => before(row.connected_s)],
  ["Took an event", (row) => before(row.ok_s)],
  ["Refused", (row) => [before(row.refused_s), small(row.refused)]],
];

export async function relays() {
  const list = await get("/relays");
  return [
    title("Relays"),
    list.map((one) => card(one.relay,
      one.warnings.map((words) => el("p", { class: "error" }, words)),
      facts(["Whose", one.own ? "our own" : one.name], ["Software", one.software],
        ["Says nothing of itself", one.not_said]),
      one.connections.length > 0 && table(null, connections, one.connections))),
  ];
}

function told(detail) {
  if (detail === null) return "–";
  if (typeof detail !== "object") return String(detail);
  const value = (v) => (v !== null && typeof v === "object" ? JSON.stringify(v) : String(v ?? "–"));
  return el("ul", { class: "detail" }, Object.entries(detail).map(([name, v]) =>
    el("li", null, el("b", null, name), ` ${value(v)}`)));
}

const logged = [
  ["Time", (row) => time(row.at)],
  ["Who", (row) => short(row.actor)],
  ["Action", (row) => row.action],
  ["About", (row) => row.subject],
  ["Detail", (row) => told(row.detail)],
];

export async function audited(subject) {
  const rows = await get(`/audit-log?${new URLSearchParams({ limit: ROWS, subject })}`);
  return rows.length > 0 && folded("Audit log", table("Newest first", logged, rows));
}

export async function audit() {
  const rows = await get(`/audit-log?limit=${ROWS}`);
  return [title("Audit log"), el("section", { class: "card" },
    rows.length ? table("Newest first", logged, rows) : empty("Nothing was changed yet."))];
}
