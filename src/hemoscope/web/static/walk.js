// The way through a study's findings: each suspected finding, slice by slice through its key slices. Where no slice
// reaches the threshold of slices there is nothing to look at: the finding is opened, and the slice stays.

/** The slice with a label's highest probability, {index, value}; null before the slices have numbers. */
export function highestSlice({ probabilities = [], labels = [], thresholds }, label) {
  const place = labels.indexOf(label);
  if (!probabilities.length || place < 0 || thresholds?.[label] === undefined) return null;
  const values = probabilities.map((row) => row[place]);
  const value = Math.max(...values);
  return { index: values.indexOf(value), value };
}

/** A label's key slices, without those to which nothing would lead. */
function slicesToSee(geometry, label) {
  const highest = highestSlice(geometry, label);
  return highest && highest.value < geometry.thresholds[label] ? [] : (geometry.key_slices[label] ?? []);
}

/** The slice at which a finding is opened; null if none shows it. */
export const firstToSee = (geometry, label) => slicesToSee(geometry, label)[0] ?? null;

/** Where `n` and `p` stop, in order: [{label, slice}]. If nothing is suspected, every label at its first key slice. */
export function stopsOf(findings, geometry) {
  const present = findings.filter((finding) => finding.present);
  const stops = present.flatMap(({ label }) => {
    const slices = slicesToSee(geometry, label);
    return (slices.length > 0 ? slices : [null]).map((slice) => ({ label, slice }));
  });
  if (stops.length > 0) return stops;
  return findings.map(({ label }) => ({ label, slice: geometry.key_slices[label]?.[0] ?? null }));
}

/** The stop after, or with step -1 before, the place where the reader is; from elsewhere, the label's own or the first. */
export function nextStop(stops, { label, slice }, step) {
  const here = stops.findIndex((stop) => stop.label === label && (stop.slice === slice || stop.slice === null));
  if (here >= 0) return stops[(here + step + stops.length) % stops.length];
  return stops.find((stop) => stop.label === label) ?? stops[0];
}

/** The finding to open first: the first suspected one that is established, else any suspected one, else `any`. */
export function firstLabel(findings) {
  const present = findings.filter((finding) => finding.present);
  return (present.find((finding) => finding.established) ?? present[0])?.label ?? "any";
}

/** The slice at which a finished study opens: the first that shows what is suspected, or the first key slice if nothing is; undefined without one. */
export function openingSlice({ geometry, findings }) {
  const all = findings.studies[0].findings;
  const label = firstLabel(all);
  return (all.some(({ present }) => present) ? firstToSee(geometry, label) : geometry.key_slices[label]?.[0]) ?? undefined;
}
