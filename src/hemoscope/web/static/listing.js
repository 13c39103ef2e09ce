// The studies that the worklist shows, and that the reading page steps through: the first ones in the order chosen, and all
// that are in progress, wherever the order puts them, so that nobody waits for a study that is not in sight.

import { getJson } from "./api.js";
import { IN_PROGRESS, isInProgress, LIMIT, matches, orderOf, parameters } from "./query.js";

const MOST_PENDING = 10; // pages of studies in progress: 5000 in all
const GONE = Object.freeze({ version: Infinity }); // of a deleted study

const fetchPage = (query, page) => getJson(`/studies?${parameters(query, { page })}`);

/**
 * So many pages, from the first on; `known` are fetched already. The server counts places: a change between two requests
 * moves studies from one page to another, so that pages of different versions are fetched again, twice at most.
 */
async function fetchPages(query, pages, { known = [], tries = 3 } = {}) {
  const answers = known.length > 0 ? [...known] : [await fetchPage(query, 0)];
  while (answers.length < pages && answers.length * LIMIT < answers.at(-1).total) answers.push(await fetchPage(query, answers.length));
  const moved = answers.some(({ version }) => version !== answers[0].version);
  return moved && tries > 1 ? fetchPages(query, pages, { tries: tries - 1 }) : answers;
}

/** The studies of all pages, each once: as it was last, and where it came last. */
function unique(pages) {
  const studies = new Map();
  for (const entry of pages.flatMap((page) => page.studies)) {
    const known = studies.get(entry.study_id);
    studies.delete(entry.study_id);
    studies.set(entry.study_id, known?.version > entry.version ? known : entry);
  }
  return [...studies.values()];
}

/**
 * The first pages of the list: {studies, last, total, version}. `last` is where the list was cut off, null if it is complete.
 * With what this returned for fewer pages as `known`, only the pages behind those are fetched.
 */
export async function fetchList(query, pages, known = {}) {
  const answers = await fetchPages(query, pages, { known: known.answers });
  const studies = unique(answers);
  const { total } = answers.at(-1);
  const counted = Math.max(...answers.map((answer) => answer.total)); // one deleted meanwhile may be shown for one that is missing
  const last = studies.length < counted ? studies.at(-1) : null;
  const pending = last && !query.state ? (known.pending ?? unique(await fetchPages({ ...query, state: IN_PROGRESS }, MOST_PENDING))) : [];
  return { studies: unique([{ studies }, { studies: pending }]), last, total, version: answers[0].version, answers, pending };
}

export class Listing {
  entries = new Map();
  total = 0; // of all that match, shown or not
  version; // of the list as fetched, from which changes follow
  #query;
  #last = null;
  #seen = new Map(); // the newest state of each study: an answer may arrive after the event that follows it

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

  /** The place where the list was cut off: its last study there, or null. */
  get end() {
    return this.#last;
  }

  /** Whether a study comes before the place where the list was cut off, or before another one. */
  isWithin(entry, end = this.#last) {
    return end === null || orderOf(this.#query)(entry, end) <= 0;
  }

  /** Whether no newer state of this study was seen. */
  isNews(entry) {
    if (this.#seen.get(entry.study_id)?.version > entry.version) return false;
    this.#seen.set(entry.study_id, entry);
    return true;
  }

  /** Show what was fetched, and what changed since. */
  take({ studies, last, total, version }) {
    this.entries = new Map(studies.map((entry) => [entry.study_id, entry]));
    Object.assign(this, { total, version });
    this.#last = last;
    studies.forEach((entry) => this.isNews(entry));
    for (const [id, newest] of this.#seen) {
      if (newest === GONE) this.entries.delete(id);
      else if (newest.version > (this.entries.get(id)?.version ?? version)) this.keep(newest);
    }
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
    this.#seen.set(studyId, GONE);
    this.entries.delete(studyId);
    this.recount();
  }

  /** Only the server knows how many studies a list has that is cut off. */
  recount(total = this.total) {
    this.total = this.isCut ? Math.max(total, this.entries.size) : this.entries.size;
  }
}
