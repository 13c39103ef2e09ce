// The way through a study's findings: each suspected finding, slice by slice through its key slices.

/** Where `n` and `p` stop, in order: [{label, slice}]. If nothing is suspected, every label at its first key slice. */
export function stopsOf(findings, keySlices) {
  const present = findings.filter((finding) => finding.present);
  const keys = ({ label }) => keySlices[label] ?? [];
  const stops = present.flatMap((finding) => keys(finding).map((slice) => ({ label: finding.label, slice })));
  if (stops.length > 0) return stops;
  return findings.map((finding) => ({ label: finding.label, slice: keys(finding)[0] ?? null }));
}

/** The stop after, or with step -1 before, the place where the reader is; from elsewhere, the label's own or the first. */
export function nextStop(stops, { label, slice }, step) {
  const here = stops.findIndex((stop) => stop.label === label && (stop.slice === slice || stop.slice === null));
  if (here >= 0) return stops[(here + step + stops.length) % stops.length];
  return stops.find((stop) => stop.label === label) ?? stops[0];
}
