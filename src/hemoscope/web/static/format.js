// Numbers and times as people read them.

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
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min`;
  if (whole < DAY) {
    const minutes = String(Math.floor((whole % HOUR) / MINUTE)).padStart(2, "0");
    return `${Math.floor(whole / HOUR)} h ${minutes} min`;
  }
  const days = Math.floor(whole / DAY);
  if (days < 60) return `${days} d`;
  return days < 730 ? `${Math.floor(days / 30.44)} months` : `${Math.floor(days / 365.25)} years`;
}

/** Seconds from an ISO time to now. */
export function secondsSince(iso, now = Date.now()) {
  return (now - Date.parse(iso)) / 1000;
}

/** Sizes as file managers show them: "18.2 MB". */
export function megabytes(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A share as a percentage without false precision. */
export function percent(share) {
  const value = share * 100;
  return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)}%`;
}

/** A count of something: "1 slice", "36 slices". */
export function counted(count, noun, plural = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : plural}`;
}
