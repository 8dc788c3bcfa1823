"use strict";
// A page that is served: ask every two seconds what has changed, and send notes, pins and stops.

const PAUSE = 2000; // milliseconds between two questions

function apply(changes) {
  const trials = new Map(page.trials.map(trial => [trial.id, trial]));
  for (const trial of changes.trials) trials.set(trial.id, trial);
  const { revision, search, sources, importance } = changes;
  const before = JSON.stringify([columns().map(column => [column.key, silence(column)]), page.sources]);
  Object.assign(page, { revision, search, sources, importance, trials: changes.order.map(id => trials.get(id)).filter(Boolean) });
  drawHeading();
  const after = JSON.stringify([columns().map(column => [column.key, silence(column)]), page.sources]);
  if (before !== after || bodies.size !== page.trials.length) drawTable();
  else changes.trials.forEach(drawTrial);
  if (changes.trials.length) {
    for (const { trained_on } of changes.trials) images.delete(trained_on?.picture); // it has the same address at each step
    drawSlider();
    reorder();
    repaint();
    drawViewer();
    redraw();
  }
  for (const area of document.querySelectorAll("[data-note]")) { // but what is being written stays
    const { note } = trialOf(area.dataset.note) ?? page.search;
    if (area.value === area.defaultValue || area.value === note) area.defaultValue = area.value = note;
  }
}

// Ask the server, apply its answer or say what is wrong; return whether there was an answer.
async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, body && { method: "POST", body: JSON.stringify(body) });
  } catch {
    return false;
  }
  const content = await answer.json().catch(() => ({ problem: `the server answers ${answer.status}` }));
  if (!content.problem) apply(content);
  say(content.problem ?? "");
  return true;
}

const say = problem => { element("problem").textContent = problem; };

async function send(path, body) {
  if (!await ask(path, body)) sayGone();
}

function sayGone() {
  const over = ["ended", "failed", "stopped"].includes(page.search.state) ? "The search has ended" : "There is no answer";
  say(`${over}, and this page is no longer served. What is shown stays. The whole page is the file ID.html in the search's folder; `
    .replace("ID", page.search.id) + `python -m experiments show ${page.search.id} serves it again.`);
}

async function poll() {
  if (!document.hidden && !await ask(`changes?since=${page.revision}`)) sayGone();
  setTimeout(poll, PAUSE);
}

document.addEventListener("change", event => {
  const { note } = event.target.dataset;
  if (note != null) send(note ? `trials/${note}` : "search", { note: event.target.value });
});
