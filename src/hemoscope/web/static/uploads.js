// Uploads in progress: one line each, with progress, cancelling, and after a failure the cause and what to do.

import { Problem, upload } from "./api.js";
import { el } from "./element.js";
import { megabytes } from "./format.js";
import { t } from "./messages.js";
import { problemBox } from "./site.js";

const nothing = () => new Problem({ detail: t("upload.nothing"), cure: t("upload.nothing-remedy") });

const noneLeft = (unreadable) =>
  new Problem({
    detail: t("upload.none-left", { count: unreadable }),
    cure: t("upload.none-left-remedy"),
  });

const changedMeanwhile = (file) =>
  new Problem({
    detail: t("upload.changed", { name: file.name }),
    cure: t("upload.changed-remedy"),
    code: "file_changed",
  });

/** The first file that can no longer be read as it was when it was chosen, or undefined. */
async function changedFile(files) {
  for (const file of files) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      return file;
    }
  }
}

/** Leaving the page ends its uploads: the browser asks first. */
const ask = (event) => event.preventDefault();

/** Starts uploads and shows them in a list; `onAccepted(entry)` gets each new study. */
export class Uploads {
  #list;
  #onAccepted;
  #running = 0;

  constructor(list, onAccepted) {
    this.#list = list;
    this.#onAccepted = onAccepted;
  }

  async start({ name, files, unreadable = 0 }) {
    const line = this.#line(name, files, unreadable);
    this.#list.append(line.node);
    this.#list.hidden = false;
    try {
      if (files.length === 0) throw unreadable > 0 ? noneLeft(unreadable) : nothing();
      const entry = await this.#guarded(upload(files, { onProgress: line.progress, signal: line.signal }));
      this.#onAccepted(entry);
      if (unreadable > 0) this.#leftOut(line.node, name, unreadable);
      else this.#remove(line.node);
    } catch (error) {
      if (error.name === "AbortError") return this.#remove(line.node);
      // A browser says of a file that changed what it says of a broken connection.
      const changed = error.code === "unreachable" && (await changedFile(files));
      this.#failed(line.node, changed ? changedMeanwhile(changed) : error, { name, files, unreadable });
    }
  }

  /** Ask before the page is left while an upload is under way. */
  async #guarded(sending) {
    this.#running += 1;
    window.addEventListener("beforeunload", ask); // only meanwhile: it keeps some browsers from going back at once
    try {
      return await sending;
    } finally {
      this.#running -= 1;
      if (this.#running === 0) window.removeEventListener("beforeunload", ask);
    }
  }

  /** The upload is done, without what could not be read. */
  #leftOut(node, name, unreadable) {
    const left = { detail: t("upload.left-out", { count: unreadable }), remedy: t("upload.left-out-remedy") };
    node.replaceChildren(el("span", { class: "upload-name", text: name }), problemBox(left, el("button", { class: "quiet", onclick: () => this.#remove(node) }, t("common.dismiss"))));
  }

  #line(name, files, unreadable) {
    const controller = new AbortController();
    const total = files.reduce((sum, file) => sum + file.size, 0);
    const bar = el("progress", { max: 1, value: 0, "aria-label": t("upload.of", { name }) });
    const what = { files: t("count.files", { count: files.length }), size: megabytes(total), count: unreadable };
    const words = el("span", { class: "upload-words", text: t(unreadable > 0 ? "upload.size-unreadable" : "upload.size", what) });
    const cancel = el("button", { class: "quiet", onclick: () => controller.abort() }, t("common.cancel"));
    const node = el("li", { class: "upload" }, el("span", { class: "upload-name", text: name }), bar, words, cancel);
    const progress = (sent, all) => {
      bar.value = all > 0 ? sent / all : 0;
      words.textContent = sent < all ? t("upload.sent", { sent: megabytes(sent), all: megabytes(all) }) : t("upload.checked");
    };
    return { node, progress, signal: controller.signal };
  }

  #remove(node) {
    node.remove();
    this.#list.hidden = this.#list.childElementCount === 0;
  }

  #failed(node, error, what) {
    if (!(error instanceof Problem)) throw error;
    const again = () => {
      this.#remove(node);
      this.start(what);
    };
    node.replaceChildren(
      el("span", { class: "upload-name", text: what.name }),
      problemBox(
        error,
        what.files.length > 0 && error.code !== "file_changed" && el("button", { onclick: again }, t("common.try-again")),
        el("button", { class: "quiet", onclick: () => this.#remove(node) }, t("common.dismiss")),
      ),
    );
  }
}
