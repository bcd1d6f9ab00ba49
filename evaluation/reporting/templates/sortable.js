(() => {
  "use strict";
  const collator = new Intl.Collator(undefined, { numeric: true });

  function value(row, column) {
    const cell = row.cells[column];
    const text = cell ? (cell.dataset.value ?? cell.textContent).trim() : "";
    return text === "" || text === "–" ? null : text;
  }

  function sort(table, header) {
    const column = header.cellIndex;
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = Array.from(body.rows, (row) => [value(row, column), row]);
      const numeric = rows.every(([text]) => text === null || Number.isFinite(Number(text)));
      const compare = numeric ? (a, b) => a - b : collator.compare;
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return descending ? compare(b, a) : compare(a, b);
      });
      body.append(...rows.map(([, row]) => row));
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const row = table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
    for (const header of row ? row.cells : []) {
      if (header.classList.contains("unsorted")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
    }
  }
})();
