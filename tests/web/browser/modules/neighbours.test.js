import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { Neighbours } from "../../../../src/hemoscope/web/static/neighbours.js";

const QUERY = { search: "", urgency: "", state: "", review: "", sort: "" };
const entry = (id, minute, changes = {}) => ({ study_id: id, urgency: "immediate", state: "done", reviews: [], version: 1, received_at: `2026-01-01T01:0${minute}:00Z`, ...changes });

async function listOf(open, studies) {
  const nodes = new Map();
  const visited = [];
  const node = () => ({ addEventListener: () => {}, textContent: "" });
  globalThis.document = { querySelector: (name) => nodes.get(name) ?? nodes.set(name, node()).get(name) };
  globalThis.location = { assign: (address) => visited.push(address) };
  globalThis.fetch = () => Promise.resolve(Response.json({ studies, version: 1 }));
  const list = new Neighbours(open, QUERY);
  await list.load();
  return { list, visited, place: () => nodes.get("#place").textContent };
}

test("a study marked as reviewed while it is open keeps its place: the next one is the one that waits", async () => {
  const { list, visited, place } = await listOf("a", [entry("a", 1), entry("b", 2), entry("c", 3)]);
  list.keep(entry("a", 1, { version: 2, reviews: [{ by: "agnes" }] }));
  assert.equal(place(), "1 of 3");
  list.go(1);
  assert.deepEqual(visited, ["/studies/b"]);
});

test("another study that is reviewed meanwhile goes behind those that wait", async () => {
  const { list, visited } = await listOf("a", [entry("a", 1), entry("b", 2), entry("c", 3)]);
  list.keep(entry("b", 2, { version: 2, reviews: [{ by: "ben" }] }));
  list.go(1);
  assert.deepEqual(visited, ["/studies/c"]);
});
