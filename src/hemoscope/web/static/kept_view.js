// Window and zoom stay while a reader goes from study to study in one tab, and pan within a study: another head lies elsewhere.

import { thisTab } from "./storage.js";
import { t } from "./messages.js";
import { PRESETS, typedWindow } from "./window.js";

const KEPT = "hemoscope.view";
const NOTHING = Object.freeze({ window: null, view: null, inverted: false, inherited: null });

const isView = (view) => ["zoom", "panX", "panY"].every((name) => Number.isFinite(view?.[name])) && view.zoom > 0;

const windowIn = (given) => typedWindow(given?.center ?? "", given?.width ?? "");

const isSame = (one, other) => one?.center === other?.center && one?.width === other?.width;

/** What of another study's {window, zoom, inverted} is still on; what the reader has changed since is this study's own. */
export function stillInherited(inherited, { window, view, inverted }) {
  if (!inherited) return null;
  return { window: isSame(inherited.window, window) ? inherited.window : null, zoom: inherited.zoom === view?.zoom ? inherited.zoom : 1, inverted: inherited.inverted && inverted };
}

/** The words that say what another study left: an enlarged or oddly windowed head must not be taken for this one's. */
export function keptWords(inherited) {
  if (!inherited) return "";
  const { window, zoom, inverted } = inherited;
  const left = [zoom !== 1 && t("kept.zoom"), window && !isSame(window, PRESETS[0]) && t("kept.window"), inverted && t("kept.inverted")].filter(Boolean);
  return left.length > 0 ? t("kept.words", { left: left.join(", ") }) : "";
}

/** Keep what a reading shows for the next study, and say what of the last one is still on. */
export function keepView(reading) {
  const { studyId, window, viewer, inverted } = reading;
  reading.inherited = stillInherited(reading.inherited, { window, view: viewer?.view, inverted });
  thisTab.set(KEPT, JSON.stringify({ studyId, window, view: viewer?.view, inverted, inherited: reading.inherited }));
  document.querySelector("#kept-words").textContent = keptWords(reading.inherited);
}

/** What another study left: its pan stays behind. */
function ofAnother({ window, view, inverted }) {
  return { window, view: view && { zoom: view.zoom, panX: 0, panY: 0 }, inverted, inherited: { window, zoom: view?.zoom ?? 1, inverted } };
}

const inheritedIn = (given) => (given ? { window: windowIn(given.window), zoom: Number(given.zoom) || 1, inverted: given.inverted === true } : null);

/** {window, view, inverted, inherited} as they were kept, null for what was not, or is damaged; `inherited` is what another study left. */
export function keptView(studyId) {
  let kept;
  try {
    kept = JSON.parse(thisTab.get(KEPT) ?? "null");
  } catch {
    return NOTHING; // written by another version of this page
  }
  if (!kept) return NOTHING;
  const found = { window: windowIn(kept.window), view: isView(kept.view) ? kept.view : null, inverted: kept.inverted === true };
  return kept.studyId === studyId ? { ...found, inherited: inheritedIn(kept.inherited) } : ofAnother(found);
}
