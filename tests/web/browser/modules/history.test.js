import assert from "node:assert/strict";
import test from "node:test";

import { MarkHistory } from "../../../../src/hemoscope/web/static/mark_history.js";

const mark = (id) => ({ measurement_id: id });
const all = () => true;

test("changes are taken back from the newest on, and what failed was none", () => {
  const history = new MarkHistory();
  history.note({ added: mark(1), removed: null });
  history.note({ added: null, removed: null });
  history.note({ added: null, removed: mark(1) });
  assert.deepEqual(history.take(all), { added: null, removed: mark(1) });
  assert.deepEqual(history.take(all), { added: mark(1), removed: null });
  assert.equal(history.take(all), null);
});

test("what is stored again is what was drawn before", () => {
  const history = new MarkHistory();
  history.note({ added: mark(1), removed: null });
  history.restored(mark(1), mark(3));
  assert.deepEqual(history.take(({ measurement_id: id }) => id === 3), { added: mark(3), removed: null });
});

test("a measurement that somebody else has deleted is passed over", () => {
  const history = new MarkHistory();
  history.note({ added: mark(1), removed: null });
  history.note({ added: mark(2), removed: null });
  assert.deepEqual(history.take(({ measurement_id: id }) => id === 1), { added: mark(1), removed: null });
  assert.equal(history.take(all), null);
});
