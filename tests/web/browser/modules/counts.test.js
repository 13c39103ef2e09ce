import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { Counts } from "../../../../src/hemoscope/web/static/counts.js";

const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Counts over a server of so many immediate studies. */
function counting(context, totals, { hidden = false, list = null } = {}) {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const asked = [];
  globalThis.document = { hidden, addEventListener: () => {} };
  globalThis.fetch = (address) => {
    asked.push(address);
    return Promise.resolve(Response.json({ total: totals[address.includes("reviewed=false") ? "unread" : "list"] }));
  };
  const shown = [];
  const counts = new Counts(() => list, (total) => shown.push([counts.unread, total]));
  return { counts, asked, shown };
}

test("immediate studies that nobody has reviewed are counted by the server, whatever the list shows", async (context) => {
  const totals = { unread: 7, list: 1800 };
  const { counts, asked, shown } = counting(context, totals, { list: "limit=1&sort=-scan" });
  await counts.renew();
  assert.deepEqual(asked, ["/api/v1/studies?urgency=immediate&reviewed=false&limit=1", "/api/v1/studies?limit=1&sort=-scan"]);
  assert.deepEqual(shown, [[7, 1800]]);
});

test("changes renew the numbers once for all of a moment, and progress does not", async (context) => {
  const { counts, asked } = counting(context, { unread: 1 });
  const known = { study_id: "a", state: "scoring", urgency: null, reviews: [] };
  counts.follow(known, { ...known, stage_done: 3 });
  context.mock.timers.tick(5000);
  assert.equal(asked.length, 0);
  counts.follow(known, { study_id: "a", state: "done", urgency: "immediate", reviews: [] });
  counts.follow(undefined, { ...known, study_id: "b" });
  context.mock.timers.tick(500);
  await settled();
  assert.equal(asked.length, 1);
});

test("progress of a study that a filter hides changes no number either", async (context) => {
  const { counts, asked } = counting(context, { unread: 1 });
  const hidden = { study_id: "a", state: "scoring", urgency: null, reviews: [] };
  for (let done = 0; done < 4; done += 1) {
    counts.follow(undefined, { ...hidden, stage_done: done });
    context.mock.timers.tick(5000);
    await settled();
  }
  assert.equal(asked.length, 1, "it may be new");
  counts.follow(undefined, { ...hidden, state: "done", urgency: "immediate" });
  context.mock.timers.tick(500);
  await settled();
  assert.equal(asked.length, 2);
});

test("a hidden tab counts every half minute, a visible one follows the events", async (context) => {
  const totals = { unread: 0 };
  const { counts, shown } = counting(context, totals, { hidden: true });
  totals.unread = 2;
  context.mock.timers.tick(30_000);
  await settled();
  await settled();
  assert.equal(counts.unread, 2);
  globalThis.document.hidden = false;
  context.mock.timers.tick(60_000);
  await settled();
  assert.equal(shown.length, 1);
});

test("numbers stay while the server does not answer", async (context) => {
  const { counts } = counting(context, { unread: 4 });
  await counts.renew();
  globalThis.fetch = () => Promise.reject(new TypeError("network"));
  await counts.renew();
  assert.equal(counts.unread, 4);
});
