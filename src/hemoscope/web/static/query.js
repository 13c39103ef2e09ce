// Which studies the list shows, and in which order. Filters and order live in the address, so that they survive going
// back, reloading and sharing, and so that the reading page steps through the same list. What is searched for may be a
// patient's name: it stays in this tab, never in an address of a page.

import { byUrgencyThenWaiting, URGENCIES } from "./labels.js";
import { thisTab } from "./storage.js";

const SEARCH = "hemoscope.search";
const PLACE = "hemoscope.place";
const STATE_FILTERS = ["queued,reading,scoring", "done", "failed"];
const REVIEW_FILTERS = ["none"];
export const LIMIT = 500;

const time = (name) => (a, b) => (Date.parse(a[name]) || 0) - (Date.parse(b[name]) || 0);
const nameOf = (entry) => entry.identity?.name ?? entry.study_id;
/** What the list can be sorted by, apart from urgency. */
export const ORDERS = Object.freeze({
  scan: time("acquired_at"),
  waiting: time("received_at"),
  study: (a, b) => nameOf(a).localeCompare(nameOf(b)),
  slices: (a, b) => a.instances - b.instances,
});

const isOrder = (text) => Object.hasOwn(ORDERS, text.replace(/^-/, ""));
const oneOf = (known, text) => (known.includes(text) ? text : "");

/** The list's query, from an address such as "?urgency=immediate&sort=-scan"; what is unknown is left out. */
export function readQuery(address = location.search) {
  const given = new URLSearchParams(address);
  const sort = given.get("sort") ?? "";
  return {
    search: thisTab.get(SEARCH) ?? "",
    urgency: oneOf([...URGENCIES, "unknown"], given.get("urgency") ?? ""),
    state: oneOf(STATE_FILTERS, given.get("state") ?? ""),
    review: oneOf(REVIEW_FILTERS, given.get("review") ?? ""),
    sort: isOrder(sort) ? sort : "",
  };
}

/** The address' part for a query: "" or "?urgency=immediate". */
export function addressOf({ urgency, state, review, sort }) {
  const kept = Object.entries({ urgency, state, review, sort }).filter(([, value]) => value);
  return kept.length > 0 ? `?${new URLSearchParams(kept)}` : "";
}

/** Keep which study is read, for the way back to the list. */
export const keepPlace = (studyId) => thisTab.set(PLACE, studyId);

/** The study that was read last in this tab, once; "" if none was. */
export function takePlace() {
  const place = thisTab.get(PLACE) ?? "";
  keepPlace("");
  return place;
}

/** Keep a query in the address and in this tab. */
export function keepQuery(query) {
  thisTab.set(SEARCH, query.search);
  history.replaceState(null, "", `${location.pathname}${addressOf(query)}`);
}

export const isFiltered = ({ search, urgency, state, review }) => Boolean(search || urgency || state || review);

/** Whether an entry belongs to the list by its filters; only the server knows what a search finds. */
export function matches(entry, { urgency, state, review }) {
  if (entry.superseded_by) return false; // the later reading of the study stands there
  const urgent = !urgency || urgency === (entry.urgency ?? "unknown");
  const open = !review || !entry.reviews?.length;
  return urgent && open && (!state || state.split(",").includes(entry.state));
}

/** The same query for the API. */
export function parameters({ search, urgency, state, review }) {
  const given = new URLSearchParams({ limit: LIMIT });
  if (search) given.set("search", search);
  if (urgency) given.set("urgency", urgency);
  if (review) given.set("reviewed", "false");
  for (const one of state.split(",").filter(Boolean)) given.append("state", one);
  return given;
}

/** The comparison of two entries: most urgent first, unless another order was chosen. */
export function orderOf({ sort }) {
  const compare = isOrder(sort) ? ORDERS[sort.replace(/^-/, "")] : null;
  if (!compare) return byUrgencyThenWaiting;
  const sign = sort.startsWith("-") ? -1 : 1;
  return (a, b) => sign * compare(a, b) || byUrgencyThenWaiting(a, b);
}

/** What the next click on a column's head sorts by: up, down, and again most urgent first. */
export function nextSort(current, column) {
  if (current === column) return `-${column}`;
  return current === `-${column}` ? "" : column;
}
