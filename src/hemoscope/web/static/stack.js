// The slices of a study: fetched around the current one, kept while near, evicted when far.

export const REACH = Object.freeze({ ahead: 20, behind: 8 });

/** Slices to have, nearest first: the current one, then more of them in the direction of travel than behind it. */
export function prefetchOrder(current, count, direction, reach = REACH) {
  const order = [current];
  const forward = direction < 0 ? -1 : 1;
  for (let step = 1; step <= Math.max(reach.ahead, reach.behind); step += 1) {
    if (step <= reach.ahead) order.push(current + forward * step);
    if (step <= reach.behind) order.push(current - forward * step);
  }
  return order.filter((index) => index >= 0 && index < count);
}

/** The cached slices to evict so that at most `capacity` stay: the farthest from the current one. */
export function evictions(held, current, capacity) {
  const far = [...held].sort((a, b) => Math.abs(b - current) - Math.abs(a - current));
  return far.slice(0, Math.max(far.length - capacity, 0));
}

/** How many slices of this size to keep: about 160 MB, and never fewer than what is fetched ahead. */
export function capacityFor(bytesPerSlice, most = 160e6) {
  return Math.max(Math.floor(most / Math.max(bytesPerSlice, 1)), REACH.ahead + REACH.behind + 1);
}

/**
 * A cache that fetches a few slices at a time, the wanted one first.
 * `load(index, signal)` returns a promise of a slice; `onLoaded(index)` or `onFailed(index, error)` is called for each.
 */
export class SliceStack {
  #slices = new Map();
  #loading = new Map();
  #failed = new Set();
  #wanted = [];
  #preferred = [];
  #options;

  constructor({ count, load, onLoaded, onFailed, capacity, parallel = 4, reach = REACH, firstAlone = false }) {
    this.#options = { count, load, onLoaded, onFailed, capacity, parallel, reach, firstAlone };
  }

  get held() {
    return [...this.#slices.keys()];
  }

  get(index) {
    return this.#slices.get(index);
  }

  /** Whether a slice could not be loaded and has not been requested again. */
  hasFailed(index) {
    return this.#failed.has(index);
  }

  /** Slices that a reader will look at first, such as key slices: fetched right after the current one, before its neighbours. */
  prefer(indices) {
    this.#preferred = [...new Set(indices)];
  }

  /** Go to a slice: fetch it, those that are shown with it (`needed`) and its neighbours, cancel what is no longer near. */
  want(index, direction = 1, needed = []) {
    const { count, reach } = this.#options;
    for (const one of [index, ...needed]) this.#failed.delete(one);
    const [current, ...near] = prefetchOrder(index, count, direction, reach);
    this.#wanted = [...new Set([current, ...needed, ...this.#preferred, ...near])];
    this.#abandon();
    this.#evict();
    this.#fetchNext();
  }

  close() {
    this.#wanted = [];
    this.#abandon();
  }

  #abandon() {
    const near = new Set(this.#wanted);
    for (const [index, controller] of this.#loading) {
      if (!near.has(index)) controller.abort();
    }
  }

  /** What is wanted stays, however far away: evicted, it would be fetched again at once, without end. */
  #evict() {
    const [current = 0] = this.#wanted;
    const others = this.held.filter((index) => !this.#wanted.includes(index));
    const wanted = this.#slices.size - others.length;
    const capacity = Math.max(this.#options.capacity, this.#wanted.length);
    for (const index of evictions(others, current, capacity - wanted)) this.#slices.delete(index);
  }

  #missing() {
    const known = (index) => this.#slices.has(index) || this.#loading.has(index) || this.#failed.has(index);
    return this.#wanted.find((index) => !known(index));
  }

  #fetchNext() {
    // With `firstAlone` nothing shares the line with the very first slice; later the wanted one never queues behind its neighbours.
    const most = this.#options.firstAlone && this.#slices.size === 0 ? 0 : this.#options.parallel;
    const mayStart = (index) => this.#loading.size < most + (index === this.#wanted[0] || most === 0 ? 1 : 0);
    for (let next = this.#missing(); next !== undefined && mayStart(next); next = this.#missing()) this.#fetch(next);
  }

  async #fetch(index) {
    const controller = new AbortController();
    this.#loading.set(index, controller);
    let outcome;
    try {
      const slice = await this.#options.load(index, controller.signal);
      outcome = () => this.#arrived(index, slice);
    } catch (error) {
      outcome = () => this.#lost(index, error, controller.signal.aborted);
    }
    this.#loading.delete(index);
    outcome();
    this.#fetchNext();
  }

  #arrived(index, slice) {
    this.#slices.set(index, slice);
    this.#evict();
    this.#options.onLoaded(index);
  }

  #lost(index, error, abandoned) {
    if (abandoned) return;
    this.#failed.add(index); // until it is requested again, so that a broken connection is not flooded
    this.#options.onFailed(index, error);
  }
}
