// The handles by which a measurement is corrected: the ends of a length, the point of a probe, the sides of a region and
// the corners of a rectangle. A handle is {row, column, moves}: `moves` says of which point it moves the row and the column, or null.

import { onStage } from "./mark_drawing.js";

const ENDS = [[0, 0], [1, 1]];
const SIDES = [[0, null], [1, null], [null, 0], [null, 1]];
const CORNERS = [[0, 0], [1, 1], [0, 1], [1, 0]]; // first those that were drawn
const MOVES = { probe: [[0, 0]], length: ENDS, ellipse: SIDES, rectangle: [...CORNERS, ...SIDES] };

export const asPoints = (pairs) => pairs.map(([row, column]) => ({ row, column }));
const between = (points, name) => (points[0][name] + points.at(-1)[name]) / 2;

/** The handles of a measurement of a kind with these points {row, column}. */
export function handlesOf(kind, points) {
  const place = (name, point) => (point === null ? between(points, name) : points[point][name]);
  return MOVES[kind].map(([row, column]) => ({ row: place("row", row), column: place("column", column), moves: { row, column } }));
}

/** The handle of these measurements nearest to a place [x, y] of the stage within `reach` screen pixels, as {mark, handle}, or null; of two at one place the first. */
export function nearestHandle(marks, place, image, [x, y], reach) {
  let [found, least] = [null, reach];
  for (const mark of marks) {
    for (const handle of handlesOf(mark.kind, asPoints(mark.points))) {
      const [left, top] = onStage(place, image, handle);
      const away = Math.hypot(left - x, top - y);
      if (away < least) [found, least] = [{ mark, handle }, away];
    }
  }
  return found;
}

/** The points once a handle was moved as far as from one point to another: it need not be met in its middle. It stays on the slice. */
export function movedPoints(points, { moves }, from, to, { rows, columns }) {
  const along = (name, number, point, most) => (moves[name] === number ? Math.min(Math.max(point[name] + to[name] - from[name], 0), most) : point[name]);
  return points.map((point, number) => ({ row: along("row", number, point, rows), column: along("column", number, point, columns) }));
}
