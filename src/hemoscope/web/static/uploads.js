// Uploads in progress: one line each, with progress, cancelling, and after a failure the cause and what to do.

import { Problem, upload } from "./api.js";
import { el } from "./element.js";
import { counted, megabytes } from "./format.js";
import { problemBox } from "./site.js";

const NOTHING = new Problem({
  title: "Nothing to upload",
  detail: "The selection contains no files.",
  cure: "Choose a folder of DICOM files, a ZIP, or single DICOM files.",
});

/** Starts uploads and shows them in a list; `onAccepted(entry)` gets each new study. */
export class Uploads {
  #list;
  #onAccepted;

  constructor(list, onAccepted) {
    this.#list = list;
    this.#onAccepted = onAccepted;
  }

  async start({ name, files }) {
    const line = this.#line(name, files);
    this.#list.append(line.node);
    this.#list.hidden = false;
    try {
      if (files.length === 0) throw NOTHING;
      const entry = await upload(files, { onProgress: line.progress, signal: line.signal });
      this.#remove(line.node);
      this.#onAccepted(entry);
    } catch (error) {
      if (error.name === "AbortError") this.#remove(line.node);
      else this.#failed(line.node, error, { name, files });
    }
  }

  #line(name, files) {
    const controller = new AbortController();
    const total = files.reduce((sum, file) => sum + file.size, 0);
    const bar = el("progress", { max: 1, value: 0, "aria-label": `Upload of ${name}` });
    const words = el("span", { class: "upload-words", text: `${counted(files.length, "file")}, ${megabytes(total)}` });
    const cancel = el("button", { type: "button", class: "quiet", onclick: () => controller.abort() }, "Cancel");
    const node = el("li", { class: "upload" }, el("span", { class: "upload-name", text: name }), bar, words, cancel);
    const progress = (sent, all) => {
      bar.value = all > 0 ? sent / all : 0;
      words.textContent = sent < all ? `${megabytes(sent)} of ${megabytes(all)}` : "Sent, being checked";
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
        what.files.length > 0 && el("button", { type: "button", onclick: again }, "Try again"),
        el("button", { type: "button", class: "quiet", onclick: () => this.#remove(node) }, "Dismiss"),
      ),
    );
  }
}
