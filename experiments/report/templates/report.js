"use strict";
// The page around pictures, table and figures; and what starts it all.

function drawHeading() {
  const { search } = page;
  element("name").textContent = search.name;
  fill(element("state"), stateLine(search));
  fill(element("machine"), [...search.machine, ...search.links.map(({ label, url }) => make("a", { href: url, target: "_blank", rel: "noopener" }, label))]
    .flatMap((item, at) => at ? [" · ", item] : [item]));
  fill(element("caption"), search.caption);
  fill(element("search-note"), search.note);
  fill(element("search-marks"), page.live && noteOf(search, null), page.live && make("button", { "data-action": "pin-search", "aria-pressed": String(search.pinned) }, "pin this search"));
  const formula = `formula of the score: ${search.formula}${search.rescored ? ", not that of the search" : ""}`;
  fill(element("facts"), [search.id && `id: ${search.id}`, ...search.facts, search.formula && formula].filter(Boolean).map(line => make("li", {}, line)));
  fill(element("meanings"), search.parts.filter(({ help }) => help).flatMap(({ label, better, help }) =>
    [make("dt", {}, label), make("dd", {}, [ARROWS[better]?.[1], help].filter(Boolean).join(": "))]));
  fill(element("advice"), search.advice.map(line => make("li", {}, line)));
  fill(element("commands"), search.commands.flatMap(({ label, command }) => [make("dt", {}, label), make("dd", {}, commandLine(label, command))]));
  element("commands").parentNode.hidden = !search.commands.length;
  element("next").hidden = !search.advice.length && !search.commands.length;
  element("confirmation").hidden = !search.confirmation;
  element("confirmation").querySelector("pre").textContent = search.confirmation;
}

function stateLine({ state, message, counts, ended, max_trials, failed, expected_end, seconds, pinned }) {
  const best = page.trials.find(trial => trial.best);
  const level = page.trials.filter(trial => trial.level).map(trial => trial.number);
  const states = Object.entries(counts).map(([name, number]) => `${number} ${name}`).join(", ");
  const line = state === "running" ? [
    `running: ${ended} of ${max_trials ?? "any number of"} trials`, failed > 0 && make("span", { class: "error" }, `${failed} failed`),
    best && `best ${best.score_text} (trial ${best.number})`, expected_end && `expected end ${clock(expected_end)}`,
  ] : [
    make("span", { class: state === "failed" && "error" }, { ended: "the search has ended", failed: "the search has failed", stopped: "the search was stopped" }[state] ?? "the search begins"),
    message, states, best && `best: trial ${best.number}, score ${best.score_text}`, level.length > 0 && `level with it, within the errors: ${level.join(", ")}`, seconds > 0 && `${duration(seconds)} in all`,
  ];
  return [pinned && make("span", { class: "mark pinned" }, "pinned"), ...line].filter(Boolean).flatMap((item, at) => at ? [" · ", item] : [item]);
}

// ---- copying, and tips for mouse and keyboard

document.addEventListener("click", async event => {
  const { copy, action } = event.target.dataset;
  if (action === "pin-search") send("search", { pinned: !page.search.pinned });
  if (copy == null) return;
  const code = event.target.parentNode.querySelector("code");
  const copied = await navigator.clipboard?.writeText(copy).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren(code);
  event.target.textContent = copied ? "copied" : "selected";
});

function showTip(event) {
  const target = event.target.closest?.("[data-tip]");
  const tip = element("tip");
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
  tip.hidePopover();
  if (!target) return;
  target.setAttribute("aria-describedby", "tip");
  tip.textContent = target.dataset.tip;
  tip.showPopover();
  const { left, bottom } = target.getBoundingClientRect();
  tip.style.left = `${Math.min(left, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${bottom + 4}px`;
}
for (const kind of ["mouseover", "focusin", "scroll"]) document.addEventListener(kind, showTip, true);

drawHeading();
drawSlider();
drawTable();
redraw();
if (page.live) setTimeout(poll, PAUSE);
