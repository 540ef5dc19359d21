// The simulated Lightning node, where the configuration has one.

import { get, post } from "./api.js";
import { msats, whole } from "./exact.js";
import { field, form } from "./forms.js";
import { card, el, table, title } from "./parts.js";

export async function simulator(page) {
  const balances = Object.entries(await get("/simulator/balances"));
  const columns = [
    ["Wallet", ([name]) => name],
    ["Balance", ([, held]) => (held.error ? el("span", { class: "error" }, held.error) : msats(held.msat)), "number"],
  ];
  const invoice = field({ name: "bolt11", label: "Invoice", tag: "textarea", rows: 4, required: true,
    spellcheck: "false", autocomplete: "off", hint: "As a machine shows it: lnbcrt…" });
  const amount = field({ name: "amount_msat", label: "Sats", inputmode: "numeric", placeholder: "as the invoice says",
    hint: "Other than what the invoice says: too much, or too little." });
  const pay = async (typed) => {
    const sat = typed("amount_msat", whole);
    const paid = await post("/simulator/pay", {
      bolt11: typed("bolt11").trim(),
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
