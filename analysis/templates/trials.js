// The table of trials: sorted by a column, searched by words, long ones page by page.
function trialTable(data, show) {
  const PAGE_ROWS = 100;
  const columns = data.table, trials = data.trials;
  const textOf = (column, row) => (column.codes[row] >= 0 ? column.values[column.codes[row]] : "");
  const cell = (column, row) => (column.numeric ? column.cells[row] : textOf(column.cells, row));
  const cellText = (column, row) => (column.numeric ? numberText(column, cell(column, row)) : cell(column, row));
  const texts = trials.number.map((_, row) => columns.map((column) => cellText(column, row)).join(" ").toLowerCase());
  let order = trials.number.map((_, row) => row), sorted = { column: 0, down: false }, limit = PAGE_ROWS;

  function sortBy(position) {
    sorted = { column: position, down: sorted.column === position ? !sorted.down : false };
    const column = columns[position], sign = sorted.down ? -1 : 1;
    const empty = (value) => value === null || value === "";
    order.sort((a, b) => {
      const left = cell(column, a), right = cell(column, b);
      if (empty(left) || empty(right)) return empty(left) - empty(right);
      return sign * (column.numeric ? left - right : String(left).localeCompare(String(right)));
    });
    fill();
  }

  function fillHeader() {
    const header = document.querySelector("#table thead tr");
    columns.forEach((column, position) => {
      const head = element("th", undefined, { scope: "col", class: column.numeric ? "number" : "" });
      const button = element("button", column.label, { type: "button" });
      button.addEventListener("click", () => sortBy(position));
      head.append(button);
      header.append(head);
    });
  }

  function fill() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = order.filter((row) => words.every((word) => texts[row].includes(word)));
    document.querySelectorAll("#table thead th").forEach((head, position) => {
      if (position === sorted.column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const body = document.createDocumentFragment();
    for (const row of rows.slice(0, limit)) {
      const line = element("tr");
      for (const column of columns) {
        const kind = column.numeric ? "number" : column.name === "reason" ? "wrap" : "";
        if (column.name !== "number") {
          line.append(element("td", cellText(column, row), { class: kind }));
          continue;
        }
        const number = trials.number[row], first = element("th", undefined, { scope: "row", class: kind });
        const link = element("a", String(number), { href: "#trial-" + number, "aria-label": "pin trial " + number });
        link.addEventListener("click", (event) => { event.preventDefault(); show(row); });
        first.append(link);
        line.append(first);
      }
      body.append(line);
    }
    document.querySelector("#table tbody").replaceChildren(body);
    byId("matching").textContent = rows.length.toLocaleString("en") + " of " + trials.number.length.toLocaleString("en") + " trials";
    byId("more").hidden = rows.length <= limit;
  }

  fillHeader();
  fill();
  byId("search").addEventListener("input", () => { limit = PAGE_ROWS; fill(); });
  byId("more").addEventListener("click", () => { limit *= 4; fill(); });
}
