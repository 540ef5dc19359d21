// What people did at a machine in service mode, and what counting has found.

import { get } from "./api.js";
import { badge, card, facts, folded, hint, small, table, time } from "./parts.js";

const piles = (notes) => Object.entries(notes).map(([value, pile]) =>
  `${value}: ${pile.counted} of ${pile.expected}`).join(", ");

const gone = ([bay, { result }]) => `bay ${bay}: ${result.presented} given`
  + (BigInt(result.rejected ?? 0) > 0n ? `, ${result.rejected} rejected` : "");

const changed = ({ bay, denomination_minor: note, change, expected }) => {
  const about = `Bay ${bay}, notes of ${note}: `;
  if (change.delta !== undefined) {
    return about + (BigInt(change.delta) < 0n ? `${change.delta} taken out` : `${change.delta} put in`);
  }
  return `${about}${change.set} counted, ` + (expected === null ? "in doubt before" : `${expected} expected`);
};

const WORDS = {
  bay_changed: changed,
  cashbox_emptied: ({ notes }) => `Cashbox emptied. ${piles(notes)}`,
  reject_bin_emptied: ({ notes }) => `Reject bin emptied. ${piles(notes)}`,
  test_dispense: ({ outcome, bays }) => `Test dispense, ${outcome}. ${Object.entries(bays).map(gone).join("; ")}`,
};

function what(row) {
  const [[name, action]] = Object.entries(row.action);
  return [WORDS[name]?.(action) ?? name.replaceAll("_", " "), small(action.reason)];
}

const columns = [
  ["Done", (row) => [time(row.at), small(`journal at ${row.journal_seq}`)]],
  ["What", what],
  ["Expected", (row) => row.expected ?? "–", "number"],
  ["Counted", (row) => row.counted ?? "–", "number"],
  ["Difference", (row) => row.difference ?? "–", "number"],
  ["Books", (row) => (row.booked_at === null ? badge("wait", "not yet") : badge("good", "booked"))],
];

const apart = (minor) => BigInt(minor) !== 0n;

// Nothing where nobody did anything there yet.
export async function atMachine(machine) {
  const found = await get(`/dca/machines/${machine.id}/service`);
  const { events, cash_difference_minor: difference, in_transit_minor: transit } = found;
  if (events.length === 0 && !apart(difference) && !apart(transit)) return null;
  return [
    (apart(difference) || apart(transit)) && card("Cash apart from the books",
      facts(["Cash difference", apart(difference) ? found.cash_difference : null],
        ["Taken out, not counted", apart(transit) ? found.in_transit : null]),
      hint("A difference below 0 is missing. Each count that found one stands below with its reason.")),
    events.length > 0 && folded("Done at the machine", table("Newest first", columns, events)),
  ];
}
