"use strict";
// The table of trials: a <tbody> for each, with its row, its problem, what it became when trained on, and its details.

const table = element("trials");
const bodies = new Map(); // by id of the trial
const HIGHLIGHTS = ["#2f9e5b", "#9a5fd0", "#c09000", "#0f9aa8", "#d1447f", "#7d8b2b"];
const MARKS = { best: "best of the finished trials", published: "the published setting",
  level: "not worse than the best, within the errors", pinned: "pinned: stays on top" };
const ARROWS = { higher: ["↑", "higher is better"], lower: ["↓", "lower is better"] };

let shownColumns = []; // as of the last drawHead: to find them takes a look at all trials
const toggle = (set, key) => set.has(key) ? set.delete(key) : set.add(key);

function drawTable() {
  drawHead();
  page.trials.forEach(drawTrial);
  const ids = new Set(page.trials.map(trial => trial.id));
  for (const [id, body] of bodies) if (!ids.has(id)) bodies.delete(id) && body.remove();
  reorder();
}

// Put the rows in order and hide those that the filter leaves out; a row is only moved if it must be.
function reorder() {
  const unknown = arrange();
  const shown = new Set(page.shown.map(trial => trial.id));
  const focused = document.activeElement;
  let next = table.tHead.nextSibling;
  for (const { id } of [...page.shown, ...page.trials.filter(trial => !shown.has(trial.id))]) {
    const body = bodies.get(id);
    body.hidden = !shown.has(id);
    if (body === next) next = next.nextSibling;
    else table.insertBefore(body, next);
  }
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
  const found = page.filter.trim() ? `${page.shown.length} of ${page.trials.length} trials` : "";
  element("found").textContent = unknown.length ? `no column ${unknown.join(", ")}` : found;
}

// ---- head

function drawHead() {
  shownColumns = columns().filter(column => !page.folded.has(column.group) && (page.all || !silence(column)));
  const heading = column => {
    const [arrow, meaning] = ARROWS[column.better] ?? [];
    const sorted = page.sort.key === column.key ? (page.sort.down ? "descending" : "ascending") : null;
    const tip = [meaning, column.help].filter(Boolean).join(": ");
    return make("th", { scope: "col", "data-key": column.key, "aria-sort": sorted, class: column.key === "number" && "first" },
      make("button", { "data-sort": column.key, "data-tip": tip || null }, column.label, arrow && make("span", { class: "better", "aria-hidden": "true" }, ` ${arrow}`)));
  };
  const [number, ...others] = shownColumns.map(heading);
  morph(table.tHead, make("thead", { style: table.tHead.getAttribute("style") }, make("tr", {},
    number, make("th", { scope: "col", "data-key": "pictures" }, sourceImages()), others)));
  for (const button of document.querySelectorAll("[data-fold]")) {
    button.setAttribute("aria-expanded", String(!page.folded.has(button.dataset.fold)));
  }
  const silent = columns().map(column => [column, silence(column)]).filter(([, why]) => why);
  const names = silent.map(([column, why]) => `${column.label} (${why})`).join(", ");
  fill(element("hidden-columns"), silent.length > 0 && [
    page.all ? "Columns that say nothing are shown too. " : `Hidden, as they say nothing here: ${names}. `,
    make("button", { "data-action": "all" }, page.all ? "hide them" : "show them")]);
  fill(element("sort"), columns().map(column => make("option", { value: column.key }, column.label)));
  element("sort").value = page.sort.key;
  paintSources();
}

function sortBy(key) { // first the best, then the other way round
  const better = columns().find(column => column.key === key).better;
  page.sort = page.sort.key === key ? { key, down: !page.sort.down } : { key, down: better === "higher" };
  drawHead();
  reorder();
}

// ---- rows

function drawTrial(trial) {
  if (!bodies.has(trial.id)) bodies.set(trial.id, table.appendChild(make("tbody")));
  const body = bodies.get(trial.id);
  const highlight = page.highlighted.get(trial.id);
  morph(body, make("tbody", {
    "data-trial": trial.id, hidden: body.hidden, style: highlight && `--highlight: ${highlight}`,
    class: [trial.best && "best", isFailed(trial) && "failed", highlight && "highlighted"].filter(Boolean).join(" "),
  }, mainRow(trial), problemRow(trial), continuedRow(trial), page.opened.has(trial.id) && detailRow(trial)));
}

function mainRow(trial) {
  const [, ...others] = shownColumns;
  return make("tr", { "data-key": "main" }, firstCell(trial), make("td", { class: "pictures" }, strip(trial)),
    others.map(column => make("td", { "data-label": column.label, class: { state: "state", default: "score" }[column.key] }, contentOf(trial, column))));
}

function contentOf(trial, column) {
  if (column.key === "state") return stateOf(trial);
  if (column.key === "default") return trial.score_text.split(/ (?=±)/).map((text, at) => make(at ? "small" : "b", {}, text));
  const error = trial.scores?.[`${column.key}_error`];
  return make("span", { "data-tip": error != null && `± ${digits(error)}`, tabindex: error != null && "-1" }, digits(column.value(trial)));
}

function firstCell(trial) {
  const open = page.opened.has(trial.id);
  return make("th", { scope: "row", class: "first" },
    make("button", { "data-action": "open", "aria-expanded": String(open), "aria-label": `details of trial ${trial.number}` }, open ? "▾" : "▸"),
    make("button", { "data-action": "highlight", "aria-pressed": String(page.highlighted.has(trial.id)), "data-tip": "highlight in the figures",
      "aria-label": `highlight trial ${trial.number} in the figures` }, String(trial.number)),
    Object.keys(MARKS).filter(mark => trial[mark]).map(mark => make("span", { class: `mark ${mark}`, "data-tip": MARKS[mark] }, mark)));
}

function stateOf(trial) {
  const progress = trial.last_step && trial.state !== "succeeded" && `${count(trial.step ?? 0)} of ${count(trial.last_step)} steps`;
  return [trial.state, trial.state === "running" && progress && make("progress", { max: trial.last_step, value: trial.step ?? 0, "aria-label": "steps" }),
    progress && make("small", {}, progress), trial.expected_end && trial.state === "running" && make("small", {}, `until ${clock(trial.expected_end)}`)];
}

const wideCell = (...children) => make("td", { colspan: shownColumns.length + 1 }, make("div", { class: "wide" }, ...children));

function problemRow(trial) {
  const problem = isFailed(trial) && (trial.log ?? trial.reason);
  return problem && make("tr", { "data-key": "problem", class: "problem" }, wideCell(problem));
}

function continuedRow(trial) {
  if (!trial.trained_on) return null;
  const { step, last_step, score_text, state, folder } = trial.trained_on;
  return make("tr", { "data-key": "continued", class: "continued" },
    make("th", { scope: "row", class: "first" }, `${trial.number} trained on to the end`), make("td", { class: "pictures" }, strip(trial, true)),
    make("td", { colspan: shownColumns.length - 1 }, make("b", {}, score_text), ` ${state}, ${count(step)} of ${count(last_step)} steps, in `, make("code", {}, folder)));
}

const links = files => files.flatMap(({ label, url }) => [make("a", { href: url, target: "_blank", rel: "noopener" }, label), " "]);

function detailRow(trial) {
  const fact = (name, ...value) => value.some(Boolean) && [make("dt", {}, name), make("dd", {}, ...value)];
  const settings = Object.entries(trial.settings).map(([name, value]) => `${name} ${digits(value)}`).join(", ");
  const { seconds, started, steps_per_second: speed, memory } = trial;
  return make("tr", { "data-key": "detail", class: "detail" }, wideCell(
    make("dl", {}, fact("id", trial.id), fact("settings that differ from the published ones", settings || "none but the parameters"),
      fact("reason", trial.reason), fact("log, last line", trial.log && make("span", { class: "error" }, trial.log)),
      fact("time", [started && `started ${clock(started)}`, seconds != null && `took ${duration(seconds)}`,
        speed && `${digits(speed)} steps/s`, memory && `${digits(memory / 2 ** 30)} GiB on the GPU`].filter(Boolean).join(", ")),
      fact("files", ...links(trial.files)), fact("sample sheets, by step", ...links(trial.sheets)),
      fact("TensorBoard", trial.step > 0 && make("code", {}, `tensorboard --logdir ${trial.folder}/tensorboard`)),
      fact("folder", make("code", {}, trial.folder), trial.log_file && make("code", {}, ` ${trial.log_file}`))),
    trial.command && commandLine("repeat it", trial.command), noteOf(trial, trial.id),
    page.live && make("p", { class: "tools" },
      make("button", { "data-action": "pin", "aria-pressed": String(trial.pinned) }, "pin on top"),
      ["running", "waiting"].includes(trial.state) && make("button", { "data-action": "stop" }, "stop this trial"))));
}

const commandLine = (label, command) => make("p", { class: "command" },
  make("button", { "data-copy": command, "aria-label": `copy: ${label}` }, "copy"), make("code", {}, command));

// A note of a trial or of the search (id null): to write while the page is live, else as text.
function noteOf({ note }, id) {
  if (!page.live) return note && make("p", { class: "note", "data-key": "note" }, note);
  const area = make("textarea", { rows: 2, maxlength: 2000, placeholder: "note", "data-note": id ?? "", "aria-label": id ? "note on this trial" : "note on the search" }, note);
  return make("p", { class: "note", "data-key": "note", "data-own": "note" }, area);
}

const ACTIONS = {
  all: () => { page.all = !page.all; drawTable(); },
  open: trial => { toggle(page.opened, trial.id); drawTrial(trial); },
  highlight,
  pin: trial => send(`trials/${trial.id}`, { pinned: !trial.pinned }),
  stop: trial => confirm(`Stop trial ${trial.number}? It cannot go on in this search.`) && send(`trials/${trial.id}`, { stop: true }),
};

function highlight(trial) {
  const used = new Set(page.highlighted.values());
  if (!page.highlighted.delete(trial.id)) page.highlighted.set(trial.id, HIGHLIGHTS.find(colour => !used.has(colour)) ?? HIGHLIGHTS[0]);
  drawTrial(trial);
  redraw();
}

element("table").addEventListener("click", event => {
  const button = event.target.closest("button");
  const { sort, fold, image, action } = button?.dataset ?? {};
  const body = event.target.closest("tbody");
  const trial = body && trialOf(body.dataset.trial);
  if (sort) sortBy(sort);
  else if (fold) { toggle(page.folded, fold); drawTable(); }
  else if (action) ACTIONS[action](trial);
  else if (image && trial) view(trial, "continued" in button.parentElement.dataset, Number(image));
  else if (image) chooseImage(Number(image));
  else if (event.target.closest("tr[data-key=main]") && !button && getSelection().isCollapsed) highlight(trial);
});
element("filter").addEventListener("input", event => { page.filter = event.target.value; reorder(); redraw(); });
element("sort").addEventListener("change", event => { page.sort.key = null; sortBy(event.target.value); });
element("direction").addEventListener("click", () => sortBy(page.sort.key));
