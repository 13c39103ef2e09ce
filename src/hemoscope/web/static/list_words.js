// Which studies the list shows, and how many, in words.

import { language } from "./format.js";
import { t } from "./messages.js";

/** "40 studies", or of a list that is cut off "The first 500 of 1,800 studies in this order". */
export function shownWords(listing) {
  const shown = [...listing.entries.values()];
  if (!listing.isCut) return t("worklist.count", { count: shown.length });
  const first = shown.filter((entry) => listing.isWithin(entry)).length;
  const words = t("worklist.first-of", { shown: first.toLocaleString(language()), count: listing.total });
  return first < shown.length ? `${words}, ${t("worklist.and-others", { count: shown.length - first })}` : words;
}

/** The same with what needs somebody: immediate studies that nobody has reviewed, whatever the list shows, and failed ones. */
export function countWords(listing, unread) {
  const failed = [...listing.entries.values()].filter((entry) => entry.state === "failed").length;
  return [shownWords(listing), unread > 0 && t("worklist.count-immediate", { count: unread }), failed > 0 && t("worklist.count-failed", { count: failed })].filter(Boolean).join(", ");
}
