"use strict";
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "level", u: "undo", U: "undo" };
const element = (id) => document.getElementById(id);
const COLUMNS = 4; // of a sheet, where there is room
const GAP = 2; // pixels between its images, as in page.css
let number = 0;
let waiting = true; // for an answer: until then the page shows a pair that has been voted on

function show(view) {
  element("message").textContent = view.problem || view.end || "";
  if (view.problem) return;
  number = view.number;
  element("progress").textContent = `${view.done} of ${view.total}`;
  element("voter").textContent = `by ${view.voter}`;
  for (const name of ["photographs", "left", "right"]) {
    element(name).replaceChildren(...(view[name] || []).map((url) => {
      const image = new Image(view.edge, view.edge);
      image.alt = "";
      image.src = url;
      return image;
    }));
  }
  for (const side of ["left", "right"]) {
    element(side).style.maxWidth = `${COLUMNS * (view.edge + GAP)}px`;
  }
  element("sheets").hidden = Boolean(view.end);
}

async function load(path, options) {
  waiting = true;
  try {
    const answer = await fetch(path, options);
    show(await answer.json());
  } catch {
    element("message").textContent = "No answer: python -m experiments prefer has ended.";
  }
  waiting = false;
}

function vote(answer) {
  if (!waiting) load("vote", { method: "POST", body: JSON.stringify({ number, vote: answer }) });
}

document.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!event.repeat) vote(KEYS[event.key]);
});
for (const button of document.querySelectorAll("button")) {
  button.addEventListener("click", () => vote(button.dataset.vote));
}
load("pair");
