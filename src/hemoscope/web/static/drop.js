// Files of a drag and drop: folders are read recursively, in as many batches as the browser returns.

import { t } from "./messages.js";

const readBatch = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/** Every file under an entry of a dropped folder, depth first; `onUnreadable(entry)` is called for what cannot be read. */
export async function filesUnder(entry, onUnreadable) {
  const files = [];
  try {
    if (entry.isFile) return [await fileOf(entry)];
    const reader = entry.createReader();
    // readEntries returns a hundred at a time, and an empty batch at the end.
    for (let batch = await readBatch(reader); batch.length > 0; batch = await readBatch(reader)) {
      for (const child of batch) files.push(...(await filesUnder(child, onUnreadable)));
    }
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    onUnreadable(entry); // without permission, or deleted meanwhile: the rest is uploaded all the same
  }
  return files;
}

/** What was dropped: {name, files, unreadable}, the last a number of files and folders. The list of entries is only readable during the event, so it is copied at once. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...transfer.files].filter(isWanted);
  if (entries.length === 0) return { name: nameOf(plain), files: plain, unreadable: 0 };
  let unreadable = 0;
  const onUnreadable = () => (unreadable += 1);
  const files = (await Promise.all(entries.map((entry) => filesUnder(entry, onUnreadable)))).flat();
  return { name: entries.length === 1 ? entries[0].name : nameOf(files), files: files.filter(isWanted), unreadable };
}

/** Hidden files of file managers are not part of a study. An empty file may be a slice whose copy was interrupted: the server names it. */
export const isWanted = (file) => !file.name.startsWith(".") && file.name !== "Thumbs.db";

const nameOf = (files) => (files.length === 1 ? files[0].name : t("count.files", { count: files.length }));

/** Call `onFiles({name, files})` for a drop anywhere on the page, with an overlay while something is dragged over it. */
export function acceptDrops(curtain, onFiles) {
  let depth = 0; // dragenter and dragleave also fire for every element on the way
  const show = (change) => {
    depth = Math.max(depth + change, 0);
    curtain.hidden = depth === 0;
  };
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const on = (name, act) =>
    window.addEventListener(name, (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      act(event);
    });
  on("dragenter", () => show(1));
  on("dragleave", () => show(-1));
  on("dragover", (event) => {
    event.dataTransfer.dropEffect = "copy";
  });
  on("drop", (event) => {
    depth = 0;
    curtain.hidden = true;
    droppedFiles(event.dataTransfer).then(onFiles);
  });
}
