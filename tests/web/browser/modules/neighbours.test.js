import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { keepPages, pagesShown } from "../../../../src/hemoscope/web/static/query.js";
import { Neighbours } from "../../../../src/hemoscope/web/static/neighbours.js";

const QUERY = { search: "", urgency: "", state: "", review: "", sort: "" };
const entry = (id, minute, changes = {}) => ({ study_id: id, urgency: "immediate", state: "done", reviews: [], version: 1, received_at: `2026-01-01T01:0${minute}:00Z`, ...changes });

async function listOf(open, studies) {
  const nodes = new Map();
  const visited = [];
  const node = () => ({ addEventListener: () => {}, textContent: "" });
  globalThis.document = { querySelector: (name) => nodes.get(name) ?? nodes.set(name, node()).get(name) };
  globalThis.location = { assign: (address) => visited.push(address) };
  globalThis.fetch = (address) => {
    const given = new URL(address, "http://here").searchParams;
    const offset = Number(given.get("offset"));
    const found = given.has("state") ? [] : studies;
    return Promise.resolve(Response.json({ studies: found.slice(offset, offset + Number(given.get("limit"))), total: found.length, version: 1 }));
  };
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

test("the way goes on where the first page of a long list ends", async () => {
  keepPages(1);
  const long = Array.from({ length: 1100 }, (_, number) => entry(`s${String(number).padStart(4, "0")}`, 1));
  const { list, visited, place } = await listOf("s0499", long);
  assert.equal(place(), "500 of 1100");
  list.go(1);
  assert.deepEqual(visited, ["/studies/s0500"]);
  assert.equal(pagesShown(), 2, "the next page, and the way back to the list, find it again");
  const next = await listOf("s0500", long);
  next.list.go(-1);
  assert.deepEqual(next.visited, ["/studies/s0499"]);
  keepPages(1);
});

test("a study far behind the end of the list has no place in it", async () => {
  keepPages(1);
  const { list, visited, place } = await listOf("elsewhere", Array.from({ length: 1100 }, (_, number) => entry(`s${number}`, 1)));
  list.go(1);
  assert.deepEqual([place(), visited], ["", []]);
  assert.equal(pagesShown(), 1);
});
