// Sorting by a column, and the slider that shows every trial's paintings at one step.
const table = document.getElementById("trials");
const body = table.tBodies[0];

for (const button of table.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement, button.dataset.kind === "number"));
}

function sortBy(header, numbers) {
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") !== "descending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const valueOf = row => {
    const text = row.cells[column].dataset.value ?? "";
    return numbers && text !== "" && !isNaN(text) ? Number(text) : text;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b));
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [valueOf(one), valueOf(other)];
    if (a === "" || b === "") return (a === "") - (b === "");  // what has no value comes last
    return down ? compare(b, a) : compare(a, b);
  });
  body.append(...rows);
}

const slider = document.getElementById("step");
const strips = JSON.parse(document.getElementById("strips").textContent);
for (const row of body.rows) {
  const image = row.querySelector("td.pictures img");
  if (image) (strips[row.dataset.trial] ??= {})[image.dataset.step] = image.src;
}

function paintingsAt(step) {
  for (const row of body.rows) {
    const own = strips[row.dataset.trial];
    if (!own) continue;
    const steps = Object.keys(own).map(Number).sort((a, b) => a - b);
    const last = steps.filter(s => s <= step).pop() ?? steps[0];
    const image = row.querySelector("img.strip");
    if (Number(image.dataset.step) !== last) {
      image.dataset.step = last;
      image.src = own[last];
    }
  }
}

slider?.addEventListener("input", () => {
  const step = JSON.parse(slider.dataset.steps)[slider.value];
  document.getElementById("shown").value = step;
  slider.setAttribute("aria-valuetext", `${step} steps`);
  paintingsAt(step);
});
