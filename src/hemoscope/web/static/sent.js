// What became of a study's results at the site's destinations, and its other readings, as lines below the findings.

import { el } from "./element.js";
import { language } from "./format.js";
import { parts, t } from "./messages.js";

const time = (iso) => new Date(iso).toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit" });

/** One destination in words: "Sent to archive 10:32, committed". */
export function deliveryWords({ destination, state, sent_at, error }) {
  if (["failed", "waiting"].includes(state)) return error ? t(`sent.${state}-why`, { destination, reason: error }) : t(`sent.${state}`, { destination });
  const sent = sent_at ? t("sent.delivered-at", { destination, time: time(sent_at) }) : t("sent.delivered", { destination });
  const then = { sent: "sent.awaited", committed: "sent.committed" }[state];
  return then ? t(then, { sent }) : sent;
}

const link = (studyId, words) => el("a", { href: `/studies/${studyId}`, text: words });

function readingLine(entry) {
  if (entry.superseded_by) return el("p", {}, parts("sent.superseded", { number: entry.reading, link: link(entry.superseded_by, t("sent.later")) }));
  if (!entry.earlier?.length) return null;
  const links = el("span", {}, entry.earlier.flatMap((studyId, place) => [place > 0 && ", ", link(studyId, t(place === 0 ? "sent.earlier" : "sent.one-before"))]));
  return el("p", {}, parts("sent.more-images", { number: entry.reading, links }));
}

/** The lines of a study; none where there is nothing to say. */
function deliveryLines(entry) {
  const lines = (entry.deliveries ?? []).map((one) => el("p", { text: deliveryWords(one) }));
  return [readingLine(entry), ...lines].filter(Boolean);
}

/** Fill a node with these lines; it is hidden if there are none. */
export function showSent(node, entry) {
  const lines = deliveryLines(entry);
  node.replaceChildren(...lines);
  node.hidden = lines.length === 0;
}
