// Numbers that only the server knows: how many immediate studies nobody has reviewed, whatever the list shows, and how many
// studies a list has that is cut off. They are asked for soon after a change, and now and then while the tab is hidden.

import { getJson, Problem } from "./api.js";

const HIDDEN_MS = 30_000; // a hidden tab has no connection for events
const SOON_MS = 500;
const UNREAD = "urgency=immediate&reviewed=false&limit=1";

const totalOf = async (asked) => (await getJson(`/studies?${asked}`)).total;

export class Counts {
  unread = 0;
  #listAsked;
  #onRenewed;
  #waiting = 0;
  #asked = 0;

  /** `listAsked()` gives the parameters of the list to count, or null. `onRenewed(total)` gets its number, or null. */
  constructor(listAsked, onRenewed) {
    this.#listAsked = listAsked;
    this.#onRenewed = onRenewed;
    setInterval(() => document.hidden && this.renew(), HIDDEN_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.renew());
  }

  /** A study has changed; `known` is what the list showed of it. Progress changes no number. */
  follow(known, entry) {
    const same = known && known.state === entry.state && known.urgency === entry.urgency && known.reviews?.length === entry.reviews?.length;
    if (!same) this.soon();
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
