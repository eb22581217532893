"use strict";
// Tables of numbers: columns are sorted by their headings, and arrow keys go from number to number.
for (const table of document.querySelectorAll("table.numbers")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const valueOf = (row, column) => {
    const text = row.cells[column].dataset.value;
    if (text === undefined) return row.cells[column].textContent.trim();
    return text === "" ? null : Number(text);
  };

  const sort = (heading) => {
    const column = headings.indexOf(heading);
    const first = heading.dataset.first || "descending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const cell of headings) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "descending" ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === "number" ? x - y : x.localeCompare(y));
    });
    body.append(...rows);
    announce(`Sorted by ${heading.innerText.trim().replace(/\s+/g, " ")}, ${order}`);
  };
  for (const heading of headings) {
    const button = heading.querySelector("button.sort");
    if (button) button.addEventListener("click", () => sort(heading));
  }

  const all = () => [...body.querySelectorAll("button.number")];
  const enter = (button) => {
    for (const other of all()) other.tabIndex = other === button ? 0 : -1;
  };
  if (all().length) enter(all()[0]);
  body.addEventListener("focusin", (event) => {
    if (event.target.matches("button.number")) enter(event.target);
  });
  body.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!(event.key in steps) || !event.target.matches("button.number")) return;
    const [down, right] = steps[event.key];
    const cell = event.target.closest("td");
    let [row, column] = [cell.parentElement.sectionRowIndex + down, cell.cellIndex + right];
    for (; body.rows[row] && body.rows[row].cells[column]; row += down, column += right) {
      const next = body.rows[row].cells[column].querySelector("button.number");
      if (!next) continue;
      event.preventDefault();
      next.focus();
      return;
    }
    event.preventDefault();
  });
}
