// Which studies the list shows, and in which order. Filters and order live in the address, so that they survive going
// back, reloading and sharing, and so that the reading page steps through the same list. What is searched for may be a
// patient's name: it stays in this tab, never in an address of a page.

import { byText, byUrgencyThenWaiting, URGENCIES } from "./labels.js";
import { thisTab } from "./storage.js";

const SEARCH = "hemoscope.search";
const PLACE = "hemoscope.place";
const PAGES = "hemoscope.pages";
export const IN_PROGRESS = "queued,reading,scoring";
const STATE_FILTERS = [IN_PROGRESS, "done", "failed"];
const REVIEW_FILTERS = ["none"];
export const LIMIT = 500;

const time = (name) => (a, b) => (Date.parse(a[name]) || 0) - (Date.parse(b[name]) || 0);
/** The name that the list shows, with a to z as A to Z: what the server sorts by. */
const nameOf = (entry) => (entry.identity?.name || entry.study_id).replace(/[a-z]+/g, (letters) => letters.toUpperCase());
/** What the list can be sorted by, apart from urgency, as the server does; a scan at an unknown time counts as the oldest. */
export const ORDERS = Object.freeze({
  scan: time("acquired_at"),
  waiting: time("received_at"),
  study: (a, b) => byText(nameOf(a), nameOf(b)),
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

/** How many pages of the list this tab shows: more than one if the reader asked for more. */
export const pagesShown = () => Number(thisTab.get(PAGES)) || 1;
export const keepPages = (pages) => thisTab.set(PAGES, String(pages));

/** Keep a query in the address and in this tab; its list begins with the first page. */
export function keepQuery(query) {
  keepPages(1);
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

export const isInProgress = (entry) => IN_PROGRESS.split(",").includes(entry.state);

/** The same query for the API: a page of its studies, or with `limit` as many. */
export function parameters({ search, urgency, state, review, sort }, { page = 0, limit = LIMIT } = {}) {
  const given = new URLSearchParams({ limit });
  if (page > 0) given.set("offset", page * LIMIT);
  if (sort) given.set("sort", sort);
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
