// The list that the reader came from: the place of this study in it, and the next and previous one.

import { getJson } from "./api.js";
import { t } from "./messages.js";
import { addressOf, isFiltered, matches, orderOf, parameters } from "./query.js";

const find = (selector) => document.querySelector(selector);

export class Neighbours {
  #studyId;
  #query;
  #entries = [];

  constructor(studyId, query) {
    this.#studyId = studyId;
    this.#query = query;
    find("#next").addEventListener("click", () => this.go(1));
    find("#previous").addEventListener("click", () => this.go(-1));
  }

  /** Fetch the list; returns its version, from which changes follow. */
  async load() {
    const { studies, version } = await getJson(`/studies?${parameters(this.#query)}`);
    this.#entries = studies;
    this.#show();
    return version;
  }

  /**
   * Keep the list as an entry changes it; returns whether the entry is news. The study that is open stays where it was when
   * the list came: one that the reader marks as reviewed would else go behind those that wait, and the way on would leave them out.
   */
  keep(entry) {
    const known = this.#entries.find((other) => other.study_id === entry.study_id);
    if (known?.version > entry.version) return false; // an event from before the list was fetched
    const listed = matches(entry, this.#query) && (known || !this.#query.search); // only the server knows what a search finds
    this.#entries = this.#entries.filter((other) => other !== known);
    if (entry.study_id === this.#studyId) this.#entries.push({ ...entry, reviews: known?.reviews ?? entry.reviews });
    else if (listed) this.#entries.push(entry);
    this.#show();
    return true;
  }

  remove(studyId) {
    this.#entries = this.#entries.filter((other) => other.study_id !== studyId);
    this.#show();
  }

  /** Open the study so many places further. */
  go(step) {
    const other = this.#entries[this.#place() + step];
    if (other && other.study_id !== this.#studyId) location.assign(`/studies/${other.study_id}${addressOf(this.#query)}`);
  }

  #place() {
    this.#entries.sort(orderOf(this.#query));
    return this.#entries.findIndex((entry) => entry.study_id === this.#studyId);
  }

  #show() {
    const index = this.#place();
    find("#previous").disabled = index <= 0;
    find("#next").disabled = index < 0 || index >= this.#entries.length - 1;
    find("#place").textContent = index < 0 ? "" : t(isFiltered(this.#query) ? "study.place-shown" : "study.place", { place: index + 1, total: this.#entries.length });
  }
}
