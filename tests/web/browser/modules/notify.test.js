import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { Notifier } from "../../../../src/hemoscope/web/static/notify.js";

const settled = () => new Promise((resolve) => setImmediate(resolve));

async function notifying(immediate) {
  const shown = [];
  globalThis.Notification = class {
    static requestPermission = () => Promise.resolve("granted");
    constructor(title, { tag }) {
      shown.push(tag);
    }
  };
  globalThis.window = globalThis;
  globalThis.document = { hidden: true };
  globalThis.fetch = () => Promise.resolve(Response.json({ studies: immediate, total: immediate.length, version: 1 }));
  let click;
  const notifier = new Notifier({ addEventListener: (_, act) => (click = act), setAttribute: () => {} });
  click();
  while (!notifier.on) await settled();
  return { notifier, shown };
}

const immediate = (id, changes = {}) => ({ study_id: id, urgency: "immediate", ...changes });

test("a claim on a study that was immediate before notifies of nothing, whether the list shows it or not", async () => {
  const { notifier, shown } = await notifying([immediate("old")]);
  for (const claim of [{ by: "agnes" }, null, { by: "ben" }]) notifier.tell(immediate("old", { claim }));
  assert.deepEqual(shown, []);
});

test("a study notifies once as it becomes immediate, and again only after it was not", async () => {
  const { notifier, shown } = await notifying([]);
  notifier.tell(immediate("new", { urgency: null }));
  for (let events = 0; events < 3; events += 1) notifier.tell(immediate("new"));
  assert.deepEqual(shown, ["new"]);
  notifier.tell(immediate("new", { urgency: "prompt" }));
  notifier.tell(immediate("new"));
  assert.deepEqual(shown, ["new", "new"]);
});

test("what the reader sees change in the visible page does not notify later", async () => {
  const { notifier, shown } = await notifying([]);
  globalThis.document.hidden = false;
  notifier.tell(immediate("seen"));
  globalThis.document.hidden = true;
  notifier.tell(immediate("seen", { claim: { by: "agnes" } }));
  assert.deepEqual(shown, []);
});
