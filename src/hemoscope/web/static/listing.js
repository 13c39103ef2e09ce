// The studies that the worklist shows, and that the reading page steps through: the first ones in the order chosen, and all
// that are in progress, wherever the order puts them, so that nobody waits for a study that is not in sight.

import { getJson } from "./api.js";
import { IN_PROGRESS, isInProgress, matches, orderOf, parameters } from "./query.js";

const fetchStudies = (query, options) => getJson(`/studies?${parameters(query, options)}`);

/** The first pages of the list: {studies, last, total, version}. `last` is where the list was cut off, null if it is complete. */
export async function fetchList(query, pages) {
  const { studies, total, version } = await fetchStudies(query);
  for (let page = 1; page < pages && studies.length < total; page += 1) {
    const more = (await fetchStudies(query, { page })).studies;
    if (more.length === 0) break; // deleted meanwhile
    studies.push(...more);
  }
  const last = studies.length < total ? studies.at(-1) : null;
  const pending = last && !query.state ? (await fetchStudies({ ...query, state: IN_PROGRESS })).studies : [];
  return { studies: [...studies, ...pending], last, total, version };
}

export class Listing {
  entries = new Map();
  total = 0; // of all that match, shown or not
  version; // of the list as fetched, from which changes follow
  #query;
  #last = null;
  #seen = new Map(); // the newest version of each study: an answer may arrive after the event that follows it

  /** `query` may change; `take` then gets what was fetched with it. */
  constructor(query) {
    this.#query = query;
  }

  /** Whether there are more studies than these. */
  get isCut() {
    return this.#last !== null;
  }

  get sorted() {
    return [...this.entries.values()].sort(orderOf(this.#query));
  }

  /** Whether a study comes before the place where the list was cut off. */
  isWithin(entry) {
    return this.#last === null || orderOf(this.#query)(entry, this.#last) <= 0;
  }

  /** Whether no newer state of this study was seen. */
  isNews(entry) {
    if ((this.#seen.get(entry.study_id) ?? 0) > entry.version) return false;
    this.#seen.set(entry.study_id, entry.version);
    return true;
  }

  /** Show what was fetched, and what changed since. */
  take({ studies, last, total, version }) {
    const later = this.#query.search ? [] : [...this.entries.values()].filter((entry) => entry.version > version);
    this.entries = new Map(studies.filter((entry) => this.isNews(entry)).map((entry) => [entry.study_id, entry]));
    Object.assign(this, { total, version });
    this.#last = last;
    later.forEach((entry) => this.keep(entry));
    this.recount();
  }

  /** Keep the list as a study changes it. A study in sight stays until the list is fetched again; with `always` even if no filter lets it through. */
  keep(entry, { always = false } = {}) {
    const known = this.entries.get(entry.study_id);
    if (known?.version > entry.version) return;
    if (always || ((known || this.#isNewHere(entry)) && matches(entry, this.#query))) this.entries.set(entry.study_id, { ...known, ...entry });
    else this.entries.delete(entry.study_id);
    this.recount();
  }

  /** Whether a study that was not in sight comes into it; only the server knows what a search finds. */
  #isNewHere(entry) {
    return !this.#query.search && (isInProgress(entry) || this.isWithin(entry));
  }

  remove(studyId) {
    this.#seen.set(studyId, Infinity);
    this.entries.delete(studyId);
    this.recount();
  }

  /** Only the server knows how many studies a list has that is cut off. */
  recount(total = this.total) {
    this.total = this.isCut ? Math.max(total, this.entries.size) : this.entries.size;
  }
}
