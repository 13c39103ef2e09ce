// Who reads this study and who has reviewed it: sent to the server, and shown as the other readers' pages report it.
// A mark locks nothing. It ends when the page is left, when somebody takes over, or some time after the last sign of life.

import { Problem, sendJson, sendOnLeaving } from "./api.js";
import { announce } from "./announce.js";
import { el, icon } from "./element.js";
import { duration, language, secondsSince } from "./format.js";
import { parts, t } from "./messages.js";
import { beforeLogOut } from "./site.js";

const IDLE_MS = 10 * 60 * 1000; // a page that nobody touches for so long gives no sign of life
const BEATS = 4; // signs of life in the time that a mark lasts
const MARKS = ["claim", "reviews", "initials", "readers", "feedback", "verdicts"];

/** Whether two rows of a study differ in nothing but what readers do. */
export function differInMarksAlone(known, entry) {
  const rest = (row) => JSON.stringify(Object.entries(row).filter(([name]) => name !== "version" && !MARKS.includes(name) && name in entry && name in known));
  return rest(known) === rest(entry) && MARKS.some((name) => JSON.stringify(known[name]) !== JSON.stringify(entry[name]));
}

function time(iso) {
  const [at, now] = [new Date(iso), new Date()];
  const clock = at.toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit" });
  return at.toDateString() === now.toDateString() ? clock : `${at.toLocaleDateString(language())} ${clock}`;
}

const nameOf = (name, initials) => el("abbr", { class: "initials", title: name, text: initials?.[name] ?? name });

export class Readers {
  #path;
  #node;
  #me = null; // null where everybody is the one local user
  #entry = null;
  #user = "";
  #heard = 0; // rows that came
  #touched = Date.now();
  #sent = null; // the last sign of life, until it is answered and after
  #left = false;
  #reviewing = false; // until the server has answered

  constructor(studyId, node) {
    this.#path = `/studies/${studyId}`;
    this.#node = node;
  }

  /** Begin to read a study: `site` as the API gives it, `entry` the study's row. */
  begin(site, entry) {
    this.#user = site.user.name;
    this.#me = site.login_required ? site.user.name : null;
    this.show(entry);
    for (const kind of ["pointerdown", "pointermove", "keydown", "wheel"]) document.addEventListener(kind, () => this.#touch(), { passive: true });
    setInterval(() => this.#beat(), (site.claim_seconds * 1000) / BEATS);
    beforeLogOut(() => this.#leave(), () => this.#stay());
    window.addEventListener("pagehide", () => this.#isMine && !this.#left && sendOnLeaving("DELETE", `${this.#path}/claim`));
    window.addEventListener("pageshow", (event) => event.persisted && this.#beat());
    this.#beat();
  }

  get #isMine() {
    return this.#entry?.claim?.by === this.#user;
  }

  get #isIdle() {
    return Date.now() - this.#touched > IDLE_MS;
  }

  #touch() {
    const back = this.#isIdle;
    this.#touched = Date.now();
    if (back) this.#beat();
  }

  /** The row has changed: another reader came, took over or left. */
  show(entry) {
    this.#heard += 1;
    const before = this.#entry?.claim?.by;
    this.#entry = { ...this.#entry, ...entry };
    const by = this.#entry.claim?.by;
    if (before === this.#user && by && by !== before) announce(t("readers.taken-over", { name: by }));
    this.#draw();
    if (before && !by) this.#beat(); // free again: by the reader who left, or by this reader's other page
  }

  async #beat(takeOver = false) {
    if (this.#left || (this.#isIdle && !takeOver)) return;
    this.#sent = this.#attempt(async () => {
      const heard = this.#heard;
      const claim = await sendJson("PUT", `${this.#path}/claim`, { take_over: takeOver });
      // What the row says since may be newer: an answer under way while somebody takes over must not undo that.
      if (heard === this.#heard) this.#entry = { ...this.#entry, claim };
    });
    await this.#sent;
  }

  /** Give no more signs of life: logging out ends the mark, and a session that has ended cannot set it again. */
  async #leave() {
    this.#left = true;
    await this.#sent;
  }

  #stay() {
    this.#left = false;
    this.#beat();
  }

  /** Take over from another reader, or do nothing. */
  takeOver() {
    if (this.#me && !this.#isMine) this.#beat(true);
  }

  get #review() {
    return this.#entry?.reviews?.find(({ by }) => by === this.#user);
  }

  /** Mark the study as reviewed by this reader, or take that back. */
  async toggleReview() {
    if (this.#entry?.state !== "done" || this.#reviewing) return;
    this.#reviewing = true;
    const others = this.#entry.reviews.filter(({ by }) => by !== this.#user);
    const reviewed = !this.#review;
    await this.#attempt(async () => {
      const review = await sendJson(reviewed ? "PUT" : "DELETE", `${this.#path}/review`);
      this.#entry = { ...this.#entry, reviews: review ? [...others, review] : others };
      announce(t(reviewed ? "readers.marked" : "readers.review-taken-back"));
    });
    this.#reviewing = false;
  }

  async #attempt(act) {
    try {
      await act();
      this.#draw();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#draw(error.message); // the next sign of life tries again
    }
  }

  /** Who else reads the study, in words; "" if nobody does. */
  get otherWords() {
    const { claim, initials } = this.#entry ?? {};
    return claim && this.#me && !this.#isMine ? t("readers.other", { name: initials?.[claim.by] ?? claim.by, age: duration(Math.max(secondsSince(claim.since), 0)) }) : "";
  }

  #readingLine() {
    const { claim, initials } = this.#entry;
    if (!claim || !this.#me) return null;
    if (this.#isMine) return el("p", { class: "faint", text: t("readers.you") });
    const since = duration(Math.max(secondsSince(claim.since), 0));
    const button = el("button", { class: "small", dataset: { act: "take-over" }, title: t("readers.take-over-key", { key: "t" }), onclick: () => this.takeOver() }, t("readers.take-over"));
    return el("p", { class: "claim-other" }, el("span", {}, parts("readers.other", { name: nameOf(claim.by, initials), age: since })), button);
  }

  #reviewLine() {
    const { reviews = [], initials, state } = this.#entry;
    if (state !== "done") return null;
    const by = el("span", {}, reviews.flatMap((one, place) => [place > 0 && ", ", nameOf(one.by, initials), ` ${time(one.at)}`]));
    const words = reviews.length > 0 ? el("span", { class: "reviewed-by" }, icon("check"), el("span", {}, parts("readers.reviewed-by", { readers: by }))) : el("span", { class: "faint", text: t("readers.not-reviewed") });
    const button = el("button", { class: "small", dataset: { act: "review" }, title: t("readers.mark-key", { key: "v" }), onclick: () => this.toggleReview() }, t(this.#review ? "readers.take-back" : "readers.mark"));
    return el("p", {}, words, button);
  }

  #draw(trouble = "") {
    if (!this.#entry) return;
    const hadFocus = this.#node.contains(document.activeElement);
    const acted = document.activeElement?.dataset.act; // the same button again, never another: Enter would press it
    const lines = [this.#readingLine(), this.#reviewLine(), trouble && el("p", { class: "remedy", text: trouble })].filter(Boolean);
    this.#node.replaceChildren(...lines);
    this.#node.hidden = lines.length === 0;
    if (hadFocus) (acted && this.#node.querySelector(`[data-act="${acted}"]`) || this.#node).focus();
  }
}

/** The keys for these marks, for the page's table. */
export function readerKeys(readers) {
  return [
    { keys: ["v"], shown: ["v"], does: t("keys.review"), act: (event) => event.repeat || readers.toggleReview() },
    { keys: ["t"], shown: ["t"], does: t("keys.take-over"), act: () => readers.takeOver() },
  ];
}
