// What is shown under each address: each view asks the API and answers with what to show. It is
// given `page`: `again(words, node, until)` shows the view anew, with words about what was done and
// a node that stays above it; `drop(words)` takes that node away, and so does `news(state)` as soon
// as `until` of that state has words for it.

import { distribution } from "./distribution.js";
import { fleet } from "./fleet.js";
import { providers } from "./providers.js";
import { audit, rejected, relays, settlements } from "./reports.js";
import { service } from "./service.js";
import { simulator } from "./simulator.js";

export const views = { machines: fleet, settlements, distribution, providers, service, rejected, relays,
  audit, simulator };
