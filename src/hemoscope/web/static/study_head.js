// The head of the reading page: which study this is, when it was scanned, what was sent, and the reports.

import { find } from "./element.js";
import { duration, secondsSince } from "./format.js";
import { urgencyWord } from "./labels.js";
import { t } from "./messages.js";
import { studyName } from "./row.js";
import { showSent } from "./sent.js";

const RENEW_MS = 20_000; // the age is given in minutes
let renewing = 0;

function showFacts({ acquired_at: acquired, instances }) {
  const age = acquired ? t("study.scanned", { age: duration(secondsSince(acquired)) }) : t("study.scan-unknown");
  const parts = [age, instances > 0 && t("count.slices", { count: instances })].filter(Boolean);
  find("#study-facts").textContent = parts.join(" · ");
}

export function showHead(entry) {
  find("#study-name").textContent = studyName(entry);
  showFacts(entry);
  clearInterval(renewing);
  renewing = setInterval(showFacts, RENEW_MS, entry);
  const title = entry.urgency ? t("study.title-urgency", { urgency: urgencyWord(entry.urgency), study: studyName(entry) }) : studyName(entry);
  document.title = t("common.page-title", { title });
  showSent(find("#sent"), entry);
  for (const link of document.querySelectorAll("[data-report]")) {
    link.href = `/api/v1/studies/${entry.study_id}/${link.dataset.report}`;
    link.hidden = entry.state !== "done";
  }
}
