// Updates a table's rows in place. While a study is read its row changes several times a second: an element
// that is replaced between mousedown and mouseup gets no click, and loses the focus.

function refresh(known, fresh) {
  known.className = fresh.className;
  Object.assign(known.dataset, fresh.dataset);
  [...fresh.cells].forEach((cell, place) => {
    if (!known.cells[place].isEqualNode(cell)) known.cells[place].replaceWith(cell);
  });
}

/** Make `body` hold these rows in this order, identified by `data-study`; rows and cells that stay the same are kept. */
export function updateRows(body, rows) {
  const known = new Map([...body.rows].map((row) => [row.dataset.study, row]));
  const wanted = rows.map((row) => known.get(row.dataset.study) ?? row);
  const kept = new Set(wanted);
  rows.forEach((row, place) => wanted[place] !== row && refresh(wanted[place], row));
  for (const row of known.values()) if (!kept.has(row)) row.remove();
  wanted.forEach((row, place) => body.rows[place] !== row && body.insertBefore(row, body.rows[place] ?? null));
}
