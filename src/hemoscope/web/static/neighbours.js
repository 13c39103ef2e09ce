// The list that the reader came from: the place of this study in it, and the next and previous one.

import { Problem } from "./api.js";
import { el, find } from "./element.js";
import { t } from "./messages.js";
import { fetchList, Listing } from "./listing.js";
import { addressOf, isFiltered, keepPages, pagesShown } from "./query.js";

export class Neighbours {
  #studyId;
  #query;
  #list;

  constructor(studyId, query) {
    this.#studyId = studyId;
    this.#query = query;
    this.#list = new Listing(query);
    find("#next").addEventListener("click", () => this.go(1));
    find("#previous").addEventListener("click", () => this.go(-1));
  }

  /** Fetch the list; returns its version, from which changes follow. A list that does not come takes nothing but the way from the study. */
  async load() {
    try {
      this.#list.take(await this.#fetch());
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const again = el("button", { class: "quiet", title: error.detail, onclick: () => this.load() }, t("common.try-again"));
      find("#place").replaceChildren(again);
      return Infinity;
    }
    this.#show();
    return this.#list.version;
  }

  /** What the worklist shows, and a page more if the study is its last, or has moved beyond it meanwhile: the way goes on. */
  async #fetch() {
    const pages = pagesShown();
    const found = await fetchList(this.#query, pages);
    const here = ({ study_id: id }) => id === this.#studyId;
    if (!found.last || (found.studies.some(here) && !here(found.last))) return found;
    const more = await fetchList(this.#query, pages + 1, found);
    if (more.studies.some(here)) keepPages(pages + 1);
    return more;
  }

  /**
   * Keep the list as an entry changes it; returns whether the entry is news. The study that is open stays where it was when
   * the list came: one that the reader marks as reviewed would else go behind those that wait, and the way on would leave them out.
   */
  keep(entry) {
    if (!this.#list.isNews(entry)) return false; // an event from before the list was fetched
    const open = entry.study_id === this.#studyId && this.#list.entries.get(entry.study_id);
    if (open) this.#list.keep({ ...entry, reviews: open.reviews ?? entry.reviews }, { always: true });
    else this.#list.keep(entry);
    this.#show();
    return true;
  }

  remove(studyId) {
    this.#list.remove(studyId);
    this.#show();
  }

  /** Open the study so many places further. */
  go(step) {
    const { sorted, index } = this.#place();
    const other = sorted[index + step];
    if (this.#list.version !== undefined && other && index >= 0) location.assign(`/studies/${other.study_id}${addressOf(this.#query)}`);
  }

  #place() {
    const { sorted } = this.#list;
    return { sorted, index: sorted.findIndex((entry) => entry.study_id === this.#studyId) };
  }

  #show() {
    if (this.#list.version === undefined) return; // it has not come yet
    const { sorted, index } = this.#place();
    find("#previous").disabled = index <= 0;
    find("#next").disabled = index < 0 || index >= sorted.length - 1;
    const counted = index >= 0 && this.#list.isWithin(sorted[index]); // a study in progress may be far behind those before it
    find("#place").textContent = counted ? t(isFiltered(this.#query) ? "study.place-shown" : "study.place", { place: index + 1, total: this.#list.total }) : "";
  }
}
