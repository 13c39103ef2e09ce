// Window, zoom and pan stay while a reader goes from study to study in one tab.

import { thisTab } from "./storage.js";
import { typedWindow } from "./window.js";

const KEPT = "hemoscope.view";
const NOTHING = Object.freeze({ window: null, view: null, inverted: false });

export function keepView({ window, view, inverted }) {
  thisTab.set(KEPT, JSON.stringify({ window, view, inverted }));
}

const isView = (view) => ["zoom", "panX", "panY"].every((name) => Number.isFinite(view?.[name])) && view.zoom > 0;

/** {window, view, inverted} as they were kept; null for what was not, or is damaged. */
export function keptView() {
  let kept;
  try {
    kept = JSON.parse(thisTab.get(KEPT) ?? "null");
  } catch {
    return NOTHING; // written by another version of this page
  }
  if (!kept) return NOTHING;
  const window = typedWindow(kept.window?.center ?? "", kept.window?.width ?? "");
  return { window, view: isView(kept.view) ? kept.view : null, inverted: kept.inverted === true };
}
