// What the clients' programs write between the recorded calls: which step begins, which definition, which ids.

import { appendFileSync } from "node:fs";

export function mark(line) {
  appendFileSync(process.env.CONFORMANCE_RECORD, JSON.stringify(line) + "\n");
}
