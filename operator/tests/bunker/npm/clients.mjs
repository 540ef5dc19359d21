// Other people's NIP-46 clients against our bunker: connect by its URL, sign, encrypt, decrypt.
// Arguments: a bunker URL for nostr-tools, one for NDK. Ends with 0 and one line of JSON, or throws.

import assert from "node:assert/strict";
import WebSocket from "ws";
import NDK, { NDKEvent, NDKNip46Signer, NDKPrivateKeySigner, NDKUser } from "@nostr-dev-kit/ndk";
import * as nip44 from "nostr-tools/nip44";
import { BunkerSigner, parseBunkerInput } from "nostr-tools/nip46";
import { SimplePool, useWebSocketImplementation } from "nostr-tools/pool";
import { generateSecretKey, getPublicKey, verifyEvent } from "nostr-tools/pure";

globalThis.WebSocket = WebSocket;
useWebSocketImplementation(WebSocket);

const [forTools, forNdk] = process.argv.slice(2);
const peer = generateSecretKey();
const template = (kind) => ({
  kind, content: "x", tags: [["d", "x"]], created_at: Math.floor(Date.now() / 1000),
});

// what the peer reads of a payload that the bunker has encrypted for it
const read = (payload, author) =>
  nip44.v2.decrypt(payload, nip44.v2.utils.getConversationKey(peer, author));

async function nostrTools(url) {
  const pointer = await parseBunkerInput(url);
  const client = generateSecretKey();
  const pool = new SimplePool();
  // it shows the secret at each start
  for (let start = 0; start < 2; start += 1) {
    const signer = BunkerSigner.fromBunker(client, pointer, { pool });
    await signer.connect();
    assert.equal(await signer.getPublicKey(), pointer.pubkey);
    await signer.ping();
    const event = await signer.signEvent(template(30078));
    assert.ok(verifyEvent(event) && event.pubkey === pointer.pubkey && event.kind === 30078);
    await assert.rejects(signer.signEvent(template(1)), /no rule allows/);
    const payload = await signer.nip44Encrypt(getPublicKey(peer), "hello");
    assert.equal(read(payload, pointer.pubkey), "hello");
    assert.equal(await signer.nip44Decrypt(getPublicKey(peer), payload), "hello");
    await signer.close();
  }
  const thief = BunkerSigner.fromBunker(generateSecretKey(), pointer, { pool });
  await assert.rejects(thief.connect(), /Token already redeemed/);
  pool.close(pointer.relays);
}

async function ndk(url) {
  const relays = new URL(url).searchParams.getAll("relay");
  const connection = new NDK({ explicitRelayUrls: relays });
  await connection.connect(5000);
  const signer = NDKNip46Signer.bunker(connection, url, NDKPrivateKeySigner.generate());
  const user = await signer.blockUntilReady();
  const event = new NDKEvent(connection, template(30078));
  await event.sign(signer);
  assert.ok(verifyEvent(event.rawEvent()) && event.pubkey === user.pubkey);
  const note = new NDKEvent(connection, template(1));
  await assert.rejects(note.sign(signer));
  const other = new NDKUser({ pubkey: getPublicKey(peer) });
  const payload = await signer.encrypt(other, "hello", "nip44");
  assert.equal(read(payload, user.pubkey), "hello");
  assert.equal(await signer.decrypt(other, payload, "nip44"), "hello");
  return user.pubkey;
}

await nostrTools(forTools);
const key = await ndk(forNdk);
console.log(JSON.stringify({ ok: true, ndk: key }));
// both keep their connections open
process.exit(0);
