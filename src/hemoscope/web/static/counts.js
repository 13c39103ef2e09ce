// Numbers that only the server knows: how many immediate studies nobody has reviewed, whatever the list shows, and how many
// studies a list has that is cut off. They are asked for soon after a change, and now and then while the tab is hidden.

import { getJson, Problem } from "./api.js";

const HIDDEN_MS = 30_000; // a hidden tab has no connection for events
const SOON_MS = 500;
const UNREAD = "urgency=immediate&reviewed=false&limit=1";

const totalOf = async (asked) => (await getJson(`/studies?${asked}`)).total;
const countedOf = ({ state, urgency, reviews = [] }) => [state, urgency, reviews.length].join(" ");

export class Counts {
  unread = 0;
  #listAsked;
  #onRenewed;
  #waiting = 0;
  #asked = 0;
  #followed = new Map(); // what the numbers depend on, of each study that has changed

  /** `listAsked()` gives the parameters of the list to count, or null. `onRenewed(total)` gets its number, or null. */
  constructor(listAsked, onRenewed) {
    this.#listAsked = listAsked;
    this.#onRenewed = onRenewed;
    setInterval(() => document.hidden && this.renew(), HIDDEN_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.renew());
  }

  /** A study has changed; `known` is what the list showed of it, if it does. Progress changes no number. */
  follow(known, entry) {
    const before = this.#followed.get(entry.study_id) ?? (known && countedOf(known));
    const now = countedOf(entry);
    this.#followed.set(entry.study_id, now);
    if (before !== now) this.soon();
  }

  /** Renew the numbers in a moment, once for all changes until then. */
  soon() {
    this.#waiting ||= setTimeout(() => this.renew(), SOON_MS);
  }

  async renew() {
    clearTimeout(this.#waiting);
    this.#waiting = 0;
    const mine = (this.#asked += 1);
    const list = this.#listAsked();
    try {
      const [unread, total] = await Promise.all([totalOf(UNREAD), list && totalOf(list)]);
      if (mine !== this.#asked) return;
      this.unread = unread;
      this.#onRenewed(total);
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // the list says what is wrong, and the numbers stay
    }
  }
}
