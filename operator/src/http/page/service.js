// The instance: operators and their keys, the platform's fees, where everything runs.

import { get } from "./api.js";
import { platformFees } from "./documents.js";
import { init } from "./pairing.js";
import { badge, card, el, empty, facts, hint, part, small, table, time, title } from "./parts.js";
import { may } from "./state.js";

const key = (hex) => hex && el("code", null, hex);

const operator = (one) => card(`Operator: ${one.name}`,
  facts(["Key", key(one.operator_npub) ?? "not made yet"],
    ["Kept by", one.operator_npub && (one.signer === "bunker" ? "the bunker" : one.signer)],
    ["Key in the bunker", one.bunker_key_name]));

const FOUND = { refused: ["good", "refused"], signed: ["bad", "signed for it"],
  unknown: ["wait", "not found out"], running: ["idle", "under way"] };

const attempts = [
  ["Began", (row) => time(row.started_at)],
  ["What the bunker did", (row) => [badge(...FOUND[row.state]), small(row.detail)]],
  ["Found out", (row) => time(row.ended_at)],
];

const canary = (known) => card("Expired grants",
  hint("A grant for a key that is good for nothing else is left to expire, and the bunker is asked "
    + "for a signature then: it must refuse."),
  known.alert && el("p", { class: "error" }, known.alert.words),
  facts(["Every", known.every_hours === "0" ? el("span", { class: "warn" }, "never")
    : `${known.every_hours} hours`],
    ["Last answer", known.found && time(known.found.ended_at)]),
  known.newest.length ? table(null, attempts, known.newest)
    : empty("Nothing was tried yet: the first time is some minutes after the first start."));

const wallets = (names) => (names.length === 0
  ? empty("None. Add one under ", el("code", null, "[wallets]"), " in the configuration.")
  : names.join(", "));

export async function service(page) {
  const known = await get("/operators");
  const fees = part("The platform's fees",
    get("/dca/super-config").then((platform) => platformFees(page, known, platform)));
  const grants = may(known, "operator") && part("Expired grants", get("/bunker/canary").then(canary));
  return [
    title("Service"),
    known.operators.map((one) => init(page, known, one)),
    el("div", { class: "columns" },
      el("div", null, known.operators.map(operator),
        card("Keys and relays",
          facts(["Service's key", key(known.service_pubkey)],
            ["Bunker's key", key(known.bunker_npub) ?? el("span", { class: "warn" }, "no bunker")],
            ["Our key to the bunker", key(known.bunker_admin_npub)],
            ["Relays", el("ul", null, known.relays.map((relay) => el("li", null, el("code", null, relay))))],
            ["Lightning wallets", wallets(known.wallets)]),
          hint("They are set in the configuration, and read when the daemon starts."))),
      el("div", null, await fees, await grants)),
  ];
}
