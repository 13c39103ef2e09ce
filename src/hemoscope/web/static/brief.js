// For screens on which the findings lie below the picture: the verdict, the chosen finding and who reads the study in one
// line over the picture, and the picture in sight again once a slice is chosen.

import { el, find } from "./element.js";
import { t } from "./messages.js";

/** Bring the picture into sight, unless it is. */
export function showStage() {
  const { top, bottom } = find("#stage").getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) find("#stage").scrollIntoView({ block: "nearest" });
}

/** Show the line for the findings in `panel`; hidden until there are any. */
export function showBrief(panel, readers) {
  const item = panel.querySelector(".finding.is-chosen");
  const verdict = panel.querySelector(".verdict h2");
  find("#brief").hidden = !item || !verdict;
  if (find("#brief").hidden) return;
  const text = (part) => item.querySelector(part).firstChild.textContent;
  const words = t("study.brief", { urgency: verdict.textContent, label: text(".finding-name"), probability: text(".finding-probability"), status: text(".status") });
  find("#brief").replaceChildren(el("strong", { text: words }), el("span", { text: readers.otherWords }));
}
