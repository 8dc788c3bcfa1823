// Sort the table by a column, and let the slider show every trial's paintings at one step.
const table = document.getElementById("trials");
const body = table.tBodies[0];

for (const button of table.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

function sortBy(header) {
  const descending = header.getAttribute("aria-sort") !== "descending";
  for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const valueOf = row => row.cells[header.cellIndex].dataset.value ?? "";
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  body.append(...[...body.rows].sort((row, other) => {
    const [a, b] = [valueOf(row), valueOf(other)];
    if (a === "" || b === "") return (a === "") - (b === "");  // rows without a value come last
    return descending ? compare(b, a) : compare(a, b);
  }));
}

const slider = document.getElementById("step");
slider?.addEventListener("input", () => {
  const step = JSON.parse(slider.dataset.steps)[slider.value];
  document.getElementById("shown").value = step;
  slider.setAttribute("aria-valuetext", `${step} steps`);
  for (const row of body.rows) {
    const images = [...row.querySelectorAll("img.strip")];  // by step
    const shown = images.filter(image => Number(image.dataset.step) <= step).pop() ?? images[0];
    for (const image of images) image.hidden = image !== shown;
  }
});
