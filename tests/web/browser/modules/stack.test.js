import assert from "node:assert/strict";
import test from "node:test";

import { capacityFor, evictions, prefetchOrder, SliceStack } from "../../../../src/hemoscope/web/static/stack.js";

const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

/** A stack whose loads wait until they are answered, with what was asked for and what was reported. */
function stackOf({ count = 40, capacity = 100, parallel = 2, reach = { ahead: 6, behind: 2 }, firstAlone = false } = {}) {
  const asked = [];
  const waiting = new Map();
  const reported = { loaded: [], failed: [], aborted: [] };
  const load = (index, signal) => {
    asked.push(index);
    return new Promise((resolve, reject) => {
      waiting.set(index, { resolve: () => resolve(`slice ${index}`), reject });
      signal.addEventListener("abort", () => {
        reported.aborted.push(index);
        reject(new DOMException("", "AbortError"));
      });
    });
  };
  const stack = new SliceStack({ count, load, capacity, parallel, reach, firstAlone, onLoaded: (index) => reported.loaded.push(index), onFailed: (index) => reported.failed.push(index) });
  const answer = async (index) => {
    waiting.get(index).resolve();
    await settled();
  };
  const refuse = async (index) => {
    waiting.get(index).reject(new Error("no line"));
    await settled();
  };
  return { stack, asked, reported, answer, refuse };
}

test("the wanted slice comes first, then more of those ahead than of those behind", () => {
  assert.deepEqual(prefetchOrder(10, 40, 1, { ahead: 4, behind: 2 }), [10, 11, 9, 12, 8, 13, 14]);
  assert.deepEqual(prefetchOrder(10, 40, -1, { ahead: 2, behind: 1 }), [10, 9, 11, 8]);
});

test("nothing is fetched past either end", () => {
  assert.deepEqual(prefetchOrder(0, 3, -1, { ahead: 5, behind: 5 }), [0, 1, 2]);
  assert.deepEqual(prefetchOrder(2, 3, 1, { ahead: 5, behind: 5 }), [2, 1, 0]);
});

test("the farthest slices are evicted first, the current one never", () => {
  assert.deepEqual(evictions([0, 5, 10, 11, 12, 30], 11, 4), [30, 0]);
  assert.deepEqual(evictions([1, 2], 1, 4), []);
  assert.ok(!evictions([1, 2, 3], 2, 1).includes(2));
});

test("at least what is fetched ahead is kept, however large the slices", () => {
  assert.ok(capacityFor(1e9) > 20);
  assert.ok(capacityFor(512 * 512 * 2) > 200);
});

test("a few slices are fetched at a time, the wanted one beside those in progress", async () => {
  const { stack, asked, answer } = stackOf();
  stack.want(10);
  assert.deepEqual(asked, [10, 11]);
  stack.want(12);
  assert.deepEqual(asked, [10, 11, 12], "the wanted slice does not queue behind its neighbours");
  await answer(12);
  assert.equal(stack.get(12), "slice 12");
});

test("the very first slice can come alone, and its neighbours after it", async () => {
  const { stack, answer, asked } = stackOf({ firstAlone: true });
  stack.want(10);
  assert.deepEqual(asked, [10]);
  await answer(10);
  assert.deepEqual(asked, [10, 11, 9]);
  const other = stackOf({ firstAlone: true });
  other.stack.want(10);
  await other.refuse(10);
  assert.deepEqual(other.asked, [10, 11], "a slice that failed does not hold up the others");
});

test("slices that are no longer near are cancelled", async () => {
  const { stack, reported, asked } = stackOf();
  stack.want(0);
  stack.want(30);
  await settled();
  assert.deepEqual(reported.aborted.sort(), [0, 1]);
  assert.deepEqual(reported.failed, [], "cancelling is not a failure");
  assert.equal(asked[2], 30);
});

test("a long scroll never holds more than the capacity", async () => {
  const { stack, answer, asked } = stackOf({ capacity: 5, parallel: 1, reach: { ahead: 1, behind: 0 } });
  for (let index = 0; index < 20; index += 1) {
    stack.want(index);
    if (asked.at(-1) === index) await answer(index);
    while (!stack.get(index)) await answer(asked.at(-1));
  }
  assert.ok(stack.held.length <= 5);
  assert.ok(stack.held.includes(19));
});

test("a slice that failed is reported once and requested again only when it is wanted again", async () => {
  const { stack, reported, asked, refuse } = stackOf({ reach: { ahead: 0, behind: 0 } });
  stack.want(3);
  await refuse(3);
  assert.deepEqual(reported.failed, [3]);
  assert.deepEqual(asked, [3]);
  stack.want(3);
  assert.deepEqual(asked, [3, 3]);
});

test("what is held is not fetched again", async () => {
  const { stack, asked, answer } = stackOf({ reach: { ahead: 0, behind: 0 } });
  stack.want(3);
  await answer(3);
  stack.want(3);
  assert.deepEqual(asked, [3]);
});

test("key slices are fetched right after the wanted one, before its neighbours, and stay wanted", async () => {
  const { stack, asked, reported, answer } = stackOf();
  stack.prefer([30, 10, 30]);
  stack.want(10);
  assert.deepEqual(asked, [10, 30]);
  await answer(10);
  assert.deepEqual(asked, [10, 30, 11]);
  stack.want(3);
  assert.deepEqual(reported.aborted, [11], "the key slice is still wanted");
  assert.ok(asked.includes(3));
});

/** A stack over a server that answers at once, and the slices asked for; it stops answering after `most`. */
function quickStack({ most = 500, ...options }) {
  const asked = [];
  const load = (index) => {
    asked.push(index);
    return asked.length > most ? new Promise(() => {}) : Promise.resolve(`slice ${index}`);
  };
  return { asked, stack: new SliceStack({ count: 400, load, reach: { ahead: 20, behind: 8 }, onLoaded: () => {}, onFailed: () => {}, ...options }) };
}

test("a key slice far away is fetched once, and never more than the capacity is held", async () => {
  const { asked, stack } = quickStack({ capacity: 60 });
  stack.prefer([20]);
  for (let index = 4; index < 400; index += 5) {
    stack.want(index);
    await settled();
    assert.ok(stack.held.length <= 60, `${stack.held.length} slices at ${index}`);
  }
  assert.equal(asked.length, 400, "each slice once");
  assert.ok(stack.held.includes(20));
});

test("a capacity below what is wanted holds what is wanted, and fetches it once", async () => {
  const { asked, stack } = quickStack({ capacity: 3 });
  stack.want(200, 1, [190, 191]);
  await settled();
  assert.equal(asked.length, 31, "192 to 220, and what a slab needs");
  assert.equal(stack.held.length, asked.length);
  stack.want(300);
  await settled();
  assert.equal(stack.held.length, 29, "what is no longer wanted goes");
});
