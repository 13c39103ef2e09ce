// Slices as readers write them: counted from 1, with ranges, "3-5, 9".

/** "3–5, 9" for the indices [2, 3, 4, 8]. */
export function rangesOf(indices) {
  const sorted = [...new Set(indices)].sort((a, b) => a - b);
  const runs = [];
  for (const index of sorted) {
    if (runs.at(-1)?.[1] === index - 1) runs.at(-1)[1] = index;
    else runs.push([index, index]);
  }
  return runs.map(([first, last]) => (first === last ? `${first + 1}` : `${first + 1}–${last + 1}`)).join(", ");
}

/** The indices of a text, in order; null if it is no list of slices of a study of `count`. */
export function indicesOf(text, count) {
  const found = new Set();
  for (const part of text.split(/[,;]/).map((one) => one.trim())) {
    if (part === "") continue;
    const given = /^(\d{1,6})(?:\s*[-–]\s*(\d{1,6}))?$/.exec(part);
    if (!given) return null;
    const [first, last] = [Number(given[1]), Number(given[2] ?? given[1])];
    if (first < 1 || last > count || first > last) return null;
    for (let slice = first; slice <= last; slice += 1) found.add(slice - 1);
  }
  return [...found].sort((a, b) => a - b);
}
