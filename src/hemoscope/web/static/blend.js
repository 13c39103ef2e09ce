// The pixels of slabs, from slice to slice: what the slab of the slice before has computed is kept, so that a thick slab costs
// little more than a thin one. Equal to the plain average and maximum of the slices, to the last HU.

const AT_ONCE = 4; // slices in one pass over the pixels: a third of the time of one after the other
const BLOCKS = [4, 16]; // slices whose maximum is kept
const KEPT = 16; // slices before and behind a slab in which maxima are kept
const LEAST_MM = 1e-6; // less is rounding
const HALF = 0.5 + 1e-6; // so that cutting to whole numbers rounds: halves go up, whatever the order of the sum

/** Slices in groups of four with their weights, the last group filled with the first slice at no weight. */
function grouped(slices, weights) {
  const places = Array.from({ length: Math.ceil(slices.length / AT_ONCE) * AT_ONCE }, (_, place) => place);
  const all = places.map((place) => [slices[place] ?? slices[0], weights[place] ?? 0]);
  return Array.from({ length: all.length / AT_ONCE }, (_, group) => all.slice(group * AT_ONCE, (group + 1) * AT_ONCE).flat());
}

function addWeighted(sums, [a, ofA, b, ofB, c, ofC, d, ofD]) {
  for (let at = 0; at < sums.length; at += 1) sums[at] += a[at] * ofA + b[at] * ofB + c[at] * ofC + d[at] * ofD;
}

/** HU of a sum of slices at one weight and up to four more at their own. */
function rounded(sums, weight, [a, ofA, b, ofB, c, ofC, d, ofD]) {
  const result = new Int16Array(sums.length);
  for (let at = 0; at < result.length; at += 1) result[at] = Math.floor(sums[at] * weight + a[at] * ofA + b[at] * ofB + c[at] * ofC + d[at] * ofD + HALF);
  return result;
}

// Without branches, which noise makes unpredictable: (x - y) & ((x - y) >> 31) is x - y where y is larger, else 0.
function raise(highest, [a, , b, , c, , d]) {
  for (let at = 0; at < highest.length; at += 1) {
    let most = highest[at];
    let less = most - a[at];
    most -= less & (less >> 31);
    less = most - b[at];
    most -= less & (less >> 31);
    less = most - c[at];
    most -= less & (less >> 31);
    less = most - d[at];
    highest[at] = most - (less & (less >> 31));
  }
}

function maximum(slices) {
  const result = slices[0].slice();
  for (const group of grouped(slices.slice(1), [])) raise(result, group);
  return result;
}

/** Averages: slices that give their whole thickness are summed once, and one is added and one removed from slice to slice. */
class Averages {
  #sums = null; // Int32Array
  #summed = new Map(); // the slices in it, by index

  of(members, slices) {
    const whole = members.reduce((sum, { mm }) => sum + mm, 0);
    const full = Math.max(...members.map(({ mm }) => mm));
    const isFull = ({ mm }) => full - mm < LEAST_MM;
    const inner = new Map(members.map((member, place) => [member, slices[place]]).filter(([member]) => isFull(member)).map(([{ index }, slice]) => [index, slice]));
    this.#sum(inner);
    const rest = members.map((member, place) => ({ weight: member.mm / whole, slice: slices[place], member })).filter(({ member }) => !isFull(member));
    const groups = rest.length > 0 ? grouped(rest.map(({ slice }) => slice), rest.map(({ weight }) => weight)) : grouped([slices[0]], [0]);
    if (groups.length === 1) return rounded(this.#sums, full / whole, groups[0]);
    const sums = Float64Array.from(this.#sums, (sum) => (sum * full) / whole); // of unequal distances
    for (const group of groups.slice(1)) addWeighted(sums, group);
    return rounded(sums, 1, groups[0]);
  }

  #sum(inner) {
    const [added, removed] = [[...inner.keys()].filter((index) => !this.#summed.has(index)), [...this.#summed.keys()].filter((index) => !inner.has(index))];
    const size = inner.values().next().value.length;
    const follows = this.#sums?.length === size && added.length + removed.length < inner.size;
    const changes = follows ? [...added.map((index) => [inner.get(index), 1]), ...removed.map((index) => [this.#summed.get(index), -1])] : [...inner.values()].map((slice) => [slice, 1]);
    if (!follows) this.#sums = new Int32Array(size); // whole numbers: however long a reader scrolls, nothing adds up
    for (const group of grouped(changes.map(([slice]) => slice), changes.map(([, sign]) => sign))) addWeighted(this.#sums, group);
    this.#summed = inner;
  }
}

/** Maxima: those of aligned blocks of slices are kept, and a slab is the maximum of a few blocks and the slices between them. */
class Maxima {
  #blocks = new Map(); // of each size, by the block's first slice

  of(members, slices) {
    const held = new Map(members.map(({ index }, place) => [index, slices[place]]));
    const [from, to] = [Math.min(...held.keys()), Math.max(...held.keys())];
    if (to - from + 1 !== members.length) return maximum(slices); // two slices lie at one place
    this.#forget(from - KEPT, to + KEPT, slices[0].length);
    const parts = [];
    for (let at = from; at <= to; ) {
      const size = BLOCKS.findLast((one) => at % one === 0 && at + one - 1 <= to) ?? 1;
      parts.push(size === 1 ? held.get(at) : this.#block(size, at, held));
      at += size;
    }
    return maximum(parts);
  }

  #block(size, first, held) {
    const key = `${size} ${first}`;
    let found = this.#blocks.get(key);
    if (!found) {
      const part = size / AT_ONCE;
      found = maximum([0, 1, 2, 3].map((place) => (part === 1 ? held.get(first + place) : this.#block(part, first + place * part, held))));
      this.#blocks.set(key, found);
    }
    return found;
  }

  #forget(low, high, pixels) {
    for (const [key, { length }] of this.#blocks) {
      const [size, first] = key.split(" ").map(Number);
      if (first + size <= low || first > high || length !== pixels) this.#blocks.delete(key);
    }
  }
}

/** Blends the slabs of one series. */
export class Blender {
  #averages = new Averages();
  #maxima = new Maxima();

  /** The slab's HU (Int16Array) from its members [{index, mm}] and their HU, in the same order. */
  blended(mode, members, slices) {
    return (mode === "mip" ? this.#maxima : this.#averages).of(members, slices);
  }
}
