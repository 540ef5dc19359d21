// NDK's NIP-46 backend as the bunker of one machine. Arguments: a relay, the machine's key as hex, the
// seed's secret, and methods that it shall not have. Says `ready ndk` and runs until it is killed.

import WebSocket from "ws";
import NDK, { NDKNip46Backend, NDKPrivateKeySigner } from "@nostr-dev-kit/ndk";

globalThis.WebSocket = WebSocket;

const [relay, key, secret, ...without] = process.argv.slice(2);

class Bunker extends NDKNip46Backend {
  client;

  // NDK's own has no tokens: this is where its users put theirs
  async applyToken(client, token) {
    if (token !== secret) throw new Error("Token not found");
    if (this.client && this.client !== client) throw new Error("Token already redeemed");
    this.client = client;
  }
}

const connection = new NDK({ explicitRelayUrls: [relay] });
await connection.connect(5000);
const permits = async ({ pubkey }) => pubkey === bunker.client;
const bunker = new Bunker(connection, new NDKPrivateKeySigner(key), permits, [relay]);
for (const method of without) delete bunker.handlers[method];
await bunker.start();
console.log("ready ndk");
