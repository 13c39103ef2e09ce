// Window and zoom stay while a reader goes from study to study in one tab, and pan within a study: another head lies elsewhere.

import { thisTab } from "./storage.js";
import { PRESETS, typedWindow } from "./window.js";

const KEPT = "hemoscope.view";
const NOTHING = Object.freeze({ window: null, view: null, inverted: false, words: "" });

export function keepView({ studyId, window, viewer, inverted }) {
  thisTab.set(KEPT, JSON.stringify({ studyId, window, view: viewer?.view, inverted }));
}

const isView = (view) => ["zoom", "panX", "panY"].every((name) => Number.isFinite(view?.[name])) && view.zoom > 0;

const isBrain = ({ center, width }) => center === PRESETS[0].center && width === PRESETS[0].width;

/** What another study left, and the words that say so: an enlarged or oddly windowed head must not be taken for this one's. */
function ofAnother({ window, view, inverted }) {
  const left = [view && view.zoom !== 1 && "zoom", window && !isBrain(window) && "window", inverted && "inverted grey"].filter(Boolean);
  const words = left.length > 0 ? `Kept from the last study: ${left.join(", ")}. Reset with r` : "";
  return { window, view: view && { zoom: view.zoom, panX: 0, panY: 0 }, inverted, words };
}

/** {window, view, inverted} as they were kept, null for what was not, or is damaged; `words` say what another study left. */
export function keptView(studyId) {
  let kept;
  try {
    kept = JSON.parse(thisTab.get(KEPT) ?? "null");
  } catch {
    return NOTHING; // written by another version of this page
  }
  if (!kept) return NOTHING;
  const window = typedWindow(kept.window?.center ?? "", kept.window?.width ?? "");
  const found = { window, view: isView(kept.view) ? kept.view : null, inverted: kept.inverted === true };
  return kept.studyId === studyId ? { ...found, words: "" } : ofAnother(found);
}
