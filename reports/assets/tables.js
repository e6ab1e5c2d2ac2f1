// Tables that sort by a click on a header.
function sortRows(table, column, ascending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : cell.textContent;
  };
  const compare = (a, b) => {
    const x = key(a), y = key(b);
    if (typeof x === "number" && typeof y === "number") return x - y;
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return x.localeCompare(y, "en", { numeric: true });
  };
  const rows = [...body.rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
  body.append(...rows);
}

function makeSortable(table) {
  if (!table.tHead) return;
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortRows(table, column, ascending);
    });
  });
}

// columns: [{name, value(row), text(value), words?}]; a column of words has texts for values.
function buildTable(columns, rows, label) {
  const table = document.createElement("table");
  table.className = "sortable";
  table.setAttribute("aria-label", label);
  const head = table.createTHead().insertRow();
  for (const column of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = column.words ? "" : "number";
    cell.textContent = column.name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const column of columns) {
      const value = column.value(row);
      const cell = line.insertCell();
      const missing = value === null || value === undefined || Number.isNaN(value);
      cell.className = column.words ? "" : "number";
      cell.textContent = missing ? "–" : column.words ? value : column.text(value);
      if (!missing && !column.words) cell.dataset.sort = value;
    }
  }
  makeSortable(table);
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(table);
  return scroll;
}
