// Where a heat map reaches a threshold: the contour on the map's own grid by marching squares. A value lies in the middle
// of its cell, as the picture's smoothing takes it; outside the map it is 0, so that every contour is closed.

// For each corner of a square (top left, top right, bottom right, bottom left: bits 1, 2, 4, 8) that reaches the level,
// the edges that the line crosses: 0 top, 1 right, 2 bottom, 3 left.
const CROSSINGS = [[], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [], [[0, 2]], [[3, 2]], [[2, 3]], [[2, 0]], [], [[2, 1]], [[1, 3]], [[1, 0]], [[0, 3]], []];
// Two opposite corners: the mean of the four says whether the middle belongs to them.
const SADDLES = { 5: [[[3, 2], [1, 0]], [[3, 0], [1, 2]]], 10: [[[0, 3], [2, 1]], [[0, 1], [2, 3]]] };

function crossingsOf(corners, level) {
  const kind = corners.reduce((bits, value, corner) => bits + (value >= level ? 2 ** corner : 0), 0);
  if (!(kind in SADDLES)) return CROSSINGS[kind];
  const middle = (corners[0] + corners[1] + corners[2] + corners[3]) / 4;
  return SADDLES[kind][middle >= level ? 0 : 1];
}

/** Lines [fromX, fromY, toX, toY] in cells of the map, around all cells of `bytes` (rows x columns) from `level` on. */
export function contour(bytes, rows, columns, level) {
  const at = (row, column) => (row >= 0 && row < rows && column >= 0 && column < columns ? bytes[row * columns + column] : 0);
  const lines = [];
  for (let row = -1; row < rows; row += 1) {
    for (let column = -1; column < columns; column += 1) {
      const corners = [at(row, column), at(row, column + 1), at(row + 1, column + 1), at(row + 1, column)];
      const share = (from, to) => (level - corners[from]) / (corners[to] - corners[from]);
      const point = (edge) => {
        if (edge === 0) return [column + 0.5 + share(0, 1), row + 0.5];
        if (edge === 1) return [column + 1.5, row + 0.5 + share(1, 2)];
        if (edge === 2) return [column + 0.5 + share(3, 2), row + 1.5];
        return [column + 0.5, row + 0.5 + share(0, 3)];
      };
      for (const [from, to] of crossingsOf(corners, level)) lines.push([...point(from), ...point(to)]);
    }
  }
  return lines;
}
