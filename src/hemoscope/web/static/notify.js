// Browser notifications of immediate studies, for a reader who asked for them: permission is asked on a click, never before.
// They name the study by its short id alone: a notification may show on a locked screen.

import { t } from "./messages.js";

export class Notifier {
  on = false;

  constructor(button) {
    this.button = button;
    button.hidden = !("Notification" in window);
    button.addEventListener("click", () => this.#toggle());
    this.#show("off");
  }

  async #toggle() {
    const allowed = this.on || (await Notification.requestPermission()) === "granted";
    this.on = allowed && !this.on;
    this.#show(allowed ? (this.on ? "on" : "off") : "refused");
  }

  #show(state) {
    this.button.textContent = t(`notify.${state}`);
    this.button.setAttribute("aria-pressed", state === "on");
    this.button.title = t(state === "refused" ? "notify.refused-why" : "notify.why");
  }

  /** Notify of a study that has just become immediate; `known` is what the page knew of it. */
  tell(entry, known) {
    if (!this.on || !document.hidden || entry.urgency !== "immediate" || known?.urgency === "immediate") return;
    if (entry.reviews?.length || Object.values(entry.feedback ?? {}).some((count) => count > 0)) return;
    const note = new Notification(t("notify.title"), { body: t("notify.text", { id: entry.study_id.slice(0, 8) }), tag: entry.study_id });
    note.onclick = () => window.focus();
  }
}
