// Numbers and times as people read them.

import { t } from "./messages.js";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A probability with two decimals; what would round to a certainty is shown as below or above it. */
export function probability(value) {
  if (value < 0.005) return "<0.01";
  if (value > 0.995) return ">0.99";
  return value.toFixed(2);
}

/** The same, compact: ".07", "<.01". */
export const shortProbability = (value) => probability(value).replace("0.", ".");

/** A length of time in at most two units: "40 s", "12 min", "3 h 05 min", "6 d". */
export function duration(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  if (whole < MINUTE) return t("duration.seconds", { seconds: whole });
  if (whole < HOUR) return t("duration.minutes", { minutes: Math.floor(whole / MINUTE) });
  if (whole < DAY) {
    const minutes = String(Math.floor((whole % HOUR) / MINUTE)).padStart(2, "0");
    return t("duration.hours", { hours: Math.floor(whole / HOUR), minutes });
  }
  const days = Math.floor(whole / DAY);
  if (days < 60) return t("duration.days", { days });
  return days < 730 ? t("duration.months", { count: Math.floor(days / 30.44) }) : t("duration.years", { count: Math.floor(days / 365.25) });
}

/** Seconds from an ISO time to now. */
export function secondsSince(iso, now = Date.now()) {
  return (now - Date.parse(iso)) / 1000;
}

/** Sizes as file managers show them: "18.2 MB". */
export function megabytes(bytes) {
  return bytes < 1e6 ? t("upload.kilobytes", { size: Math.ceil(bytes / 1e3) }) : t("upload.megabytes", { size: (bytes / 1e6).toFixed(1) });
}

/** A share as a percentage without false precision. */
export function percent(share) {
  const value = share * 100;
  return t("meaning.percent", { value: value < 10 ? Number(value.toFixed(1)) : Math.round(value) });
}

/** The language of the page's texts, for dates and times among them; the browser's own where there is no page. */
export const language = () => globalThis.document?.documentElement?.lang || undefined;
