// What became of a study's results at the site's destinations, and its other readings, as lines below the findings.

import { el } from "./element.js";

const time = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** One destination in words: "Sent to archive 10:32, committed". */
export function deliveryWords({ destination, state, sent_at, error }) {
  if (state === "failed") return `Not sent to ${destination}${error ? `: ${error}` : ""}`;
  if (state === "waiting") return `Waits to be sent to ${destination}${error ? `: ${error}` : ""}`;
  const sent = `Sent to ${destination}${sent_at ? ` ${time(sent_at)}` : ""}`;
  return { sent: `${sent}, commitment awaited`, committed: `${sent}, committed` }[state] ?? sent;
}

const link = (studyId, words) => el("a", { href: `/studies/${studyId}`, text: words });

function readingLine(entry) {
  if (entry.superseded_by) return el("p", {}, `Reading ${entry.reading}. More images came: `, link(entry.superseded_by, "the later reading"));
  if (!entry.earlier?.length) return null;
  const links = entry.earlier.flatMap((studyId, place) => [place > 0 && ", ", link(studyId, place === 0 ? "the earlier reading" : "one before")]);
  return el("p", {}, `Reading ${entry.reading}, of more images than `, ...links);
}

/** The lines of a study; none where there is nothing to say. */
export function deliveryLines(entry) {
  const lines = (entry.deliveries ?? []).map((one) => el("p", { text: deliveryWords(one) }));
  return [readingLine(entry), ...lines].filter(Boolean);
}
