// Browser notifications of immediate studies, for a reader who asked for them: permission is asked on a click, never before.
// They name the study by its short id alone: a notification may show on a locked screen.

import { getJson, Problem } from "./api.js";
import { t } from "./messages.js";

const IMMEDIATE = "/studies?urgency=immediate&limit=1000"; // those that nobody has reviewed come first

export class Notifier {
  on = false;
  #urgencies = new Map(); // as last heard of each study, whether the list shows it or not

  constructor(button) {
    this.button = button;
    button.hidden = !("Notification" in window);
    button.addEventListener("click", () => this.#toggle());
    this.#show("off");
  }

  async #toggle() {
    const allowed = this.on || (await Notification.requestPermission()) === "granted";
    if (allowed && !this.on) await this.#learn();
    this.on = allowed && !this.on;
    this.#show(allowed ? (this.on ? "on" : "off") : "refused");
  }

  #show(state) {
    this.button.textContent = t(`notify.${state}`);
    this.button.setAttribute("aria-pressed", state === "on");
    this.button.title = t(state === "refused" ? "notify.refused-why" : "notify.why");
  }

  /** Learn which studies are immediate already: an event on one of them, such as a claim, is no news. */
  async #learn() {
    try {
      for (const { study_id: id, urgency } of (await getJson(IMMEDIATE)).studies) this.#urgencies.set(id, urgency);
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // then there may be a notification of a known study
    }
  }

  /** Notify of a study that has just become immediate. */
  tell(entry) {
    const before = this.#urgencies.get(entry.study_id);
    this.#urgencies.set(entry.study_id, entry.urgency);
    if (!this.on || !document.hidden || entry.urgency !== "immediate" || before === "immediate") return;
    if (entry.reviews?.length || Object.values(entry.feedback ?? {}).some((count) => count > 0)) return;
    const note = new Notification(t("notify.title"), { body: t("notify.text", { id: entry.study_id.slice(0, 8) }), tag: entry.study_id });
    note.onclick = () => window.focus();
  }
}
