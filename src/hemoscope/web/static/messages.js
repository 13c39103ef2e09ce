// The texts of the page: one catalogue, hemoscope/messages/en.json or the site's own, which the page brings along as data
// (the block #messages; hemoscope/messages/catalogue.py reads the same file by the same rules). A text is never markup.

let catalogue = sent(); // {locale, texts, fallback}: `fallback` is the shipped one's rest under a site's own, else null
const rules = new Map();
const numbers = new Map();

function sent() {
  const data = globalThis.document?.querySelector("#messages");
  return data ? JSON.parse(data.textContent) : null;
}

/** The catalogue in use, for a worker, which has no page to bring one. */
export const messages = () => catalogue;

/** Take another catalogue, where no page brings one. */
export function useMessages(given) {
  catalogue = given;
}

function once(memory, locale, make) {
  if (!memory.has(locale)) memory.set(locale, make());
  return memory.get(locale);
}

/** A count as the language writes it; grouping and digits as Python's Babel gives them. */
const shownCount = (count, locale) => once(numbers, locale, () => new Intl.NumberFormat(locale, { useGrouping: "always", numberingSystem: "latn" })).format(count);
const formOf = (count, locale) => once(rules, locale, () => new Intl.PluralRules(locale)).select(count);

function found(key) {
  for (const one of [catalogue, catalogue.fallback]) {
    if (one && Object.hasOwn(one.texts, key)) return { text: one.texts[key], locale: one.locale };
  }
  throw new Error(`the catalogue has no ${key}`);
}

/** The text of a key in parts, with each placeholder's value, a text or an element, in its place. */
export function parts(key, values = {}) {
  const { text, locale } = found(key);
  const pattern = typeof text === "string" ? text : (text[formOf(values.count, locale)] ?? text.other);
  return pattern.split(/\{([a-z][a-z0-9_]*)\}/).map((part, place) => {
    if (place % 2 === 0) return part;
    if (!Object.hasOwn(values, part)) throw new Error(`${key} needs ${part}`);
    return part === "count" ? shownCount(values.count, locale) : values[part];
  });
}

/** The text of a key: `t("count.slices", {count: 3})` is "3 slices". */
export const t = (key, values) => parts(key, values).join("");

/** Whether there is a text under a key, for keys that a server's code completes. */
export const isKnown = (key) => [catalogue, catalogue.fallback].some((one) => one && Object.hasOwn(one.texts, key));

/** What the server says in English, unless the site's own catalogue has a text under the key. */
export const unlessTranslated = (key, english) => (catalogue.fallback && Object.hasOwn(catalogue.texts, key) ? t(key) : english);
