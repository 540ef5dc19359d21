// Other people's CLINK wallet against our service: asks by a scanned code, without authenticating at the
// relay. Arguments: a noffer; or an ndebit and the wallet's invoice. Prints the reply as its last line.

import WebSocket from "ws";
import { bech32 } from "@scure/base";

// before the SDK looks for one
globalThis.WebSocket = WebSocket;
const { ClinkSDK, decodeBech32, generateSecretKey, newNdebitPaymentRequest } =
  await import("@shocknet/clink-sdk");

const [code, bolt11] = process.argv.slice(2);
const { type, data } = decodeBech32(code);

// the session of a debit (TLV 3), which this version of the SDK does not decode
function session(text) {
  let rest = Uint8Array.from(bech32.fromWords(bech32.decode(text, 5000).words));
  while (rest.length > 1) {
    const value = rest.slice(2, 2 + rest[1]);
    if (rest[0] === 3) return Buffer.from(value).toString("hex");
    rest = rest.slice(2 + rest[1]);
  }
  throw new Error("no session");
}

const wallet = new ClinkSDK({
  privateKey: generateSecretKey(), relays: [data.relay], toPubKey: data.pubkey,
  defaultTimeoutSeconds: 10,
});

async function ask() {
  if (type === "noffer") {
    if (data.priceType !== 0) throw new Error("expected a fixed price");
    return wallet.Noffer({ offer: data.offer, amount_sats: data.price });
  }
  const request = newNdebitPaymentRequest(bolt11, undefined, data.pointer);
  return wallet.Ndebit({ ...request, k1: session(code) });
}

// a reply may be lost: a wallet asks again
let reply;
for (let tries = 0; reply === undefined && tries < 6; tries += 1) {
  reply = await ask().catch((error) => console.error(error));
}
console.log(JSON.stringify(reply));
process.exit(reply === undefined ? 1 : 0);
