"use strict";
// Sorts a table by the column whose header is pressed: largest number or first word first, then the other way round,
// then as written. Cells without a value stay last, rows of the foot stay below.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (!body) continue;
  const written = [...body.rows];
  for (const header of table.tHead.rows[0].cells) {
    header.firstElementChild.addEventListener("click", () => {
      const numeric = written.some((row) => Number.isFinite(number(row.cells[header.cellIndex])));
      const order = numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
      const wanted = order[(order.indexOf(header.getAttribute("aria-sort")) + 1) % 3];
      for (const other of header.parentNode.cells) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", wanted);
      body.append(...sorted(written, header.cellIndex, wanted, numeric));
    });
  }
}

function sorted(rows, column, wanted, numeric) {
  if (wanted === "none") return rows;
  const sign = wanted === "ascending" ? 1 : -1;
  const absent = (row) => (numeric ? Number.isNaN(number(row.cells[column])) : row.cells[column].dataset.sort === "");
  const compare = (one, other) =>
    numeric
      ? number(one.cells[column]) - number(other.cells[column])
      : one.cells[column].textContent.localeCompare(other.cells[column].textContent, "en", { numeric: true });
  return [...rows].sort((one, other) => {
    if (absent(one) || absent(other)) return absent(one) - absent(other);
    return sign * compare(one, other);
  });
}

function number(cell) {
  return cell.dataset.sort ? Number(cell.dataset.sort) : NaN;
}
