// Sorts the table of a batch by the heading that is pressed; rows without a value stay last.
element.addEventListener("click", (event) => {
  const button = event.target.closest("th button");
  if (!button) return;
  const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
  const names = head.cellIndex === 1, rising = head.dataset.first === "up";
  const was = head.getAttribute("aria-sort");
  const up = was ? was === "descending" : rising, sign = up ? 1 : -1;
  const value = (row) => row.cells[head.cellIndex]?.dataset.value ?? "";
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  [...body.rows].map((row) => [value(row), row]).sort(([a], [b]) =>
    names ? sign * a.localeCompare(b, undefined, { numeric: true })
      : (a === "") - (b === "") || sign * (Number(a) - Number(b)))
    .forEach(([, row]) => body.append(row));
});
