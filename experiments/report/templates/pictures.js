"use strict";
// Pictures: strips of them in the table, the slider of steps, the choice of images, and the full-size view.

const embeddedPictures = embedded("pictures");
const images = new Map(); // promises by key; an image is kept, so that it stays when the server is gone

function picture(key) {
  if (!images.has(key)) images.set(key, load(key).catch(() => void images.delete(key)));
  return images.get(key);
}

async function load(key) {
  const answer = await fetch(page.live ? key : embeddedPictures[key]);
  if (!answer.ok) throw new Error(answer.status);
  const image = new Image();
  image.src = URL.createObjectURL(await answer.blob());
  await image.decode();
  return image;
}

// What is painted in one row: a trial's own pictures, or the one after it was trained on.
function painted(trial, continued) {
  if (!continued) return { ...trial, name: `trial ${trial.number}` };
  const { picture, step, score_text, pixels } = trial.trained_on;
  return { pictures: picture ? { [step]: picture } : {}, pixels, score_text, name: `trial ${trial.number}, trained on to the end` };
}

const stepsOf = pictures => Object.keys(pictures).map(Number).sort((a, b) => a - b);

// Return the step whose picture stands for `wanted`: the last one until then, else the first.
function shownStep(pictures, wanted) {
  const own = stepsOf(pictures);
  return wanted == null ? own.at(-1) : own.filter(step => step <= wanted).at(-1) ?? own[0];
}

// ---- strips: a row of buttons, each with its part of the same picture

const place = at => `background-size: ${page.sources.count * 100}% 100%; background-position: ${(at / Math.max(1, page.sources.count - 1)) * 100}% 0`;

function strip(trial, continued = false) {
  const { name, pictures } = painted(trial, continued);
  if (!page.sources || !stepsOf(pictures).length) return make("span", { class: "none" }, "no picture");
  // Only the first is a stop of the tab key: from there on, arrows go everywhere.
  const cells = chosenImages().map((at, index) => make("button", {
    class: "cell", style: place(at), "data-image": at, tabindex: index ? -1 : null, "aria-label": `${name}, image ${at + 1}`,
  }));
  const node = make("div", { class: "strip", "data-own": page.images, "data-trial": trial.id, "data-continued": continued }, cells, make("small"));
  nearby.observe(node);
  return node;
}

// Pictures are decoded only for rows that are on the screen or close to it.
const near = new Set();
const nearby = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    near[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting) paint(target);
  }
}, { rootMargin: "500px", scrollMargin: "500px" });

async function paint(node) {
  const trial = trialOf(node.dataset.trial);
  if (!trial || !node.isConnected) return void near.delete(node);
  const { pictures } = painted(trial, "continued" in node.dataset);
  const step = shownStep(pictures, page.step);
  const behind = step !== (page.step ?? steps.at(-1)) && !("continued" in node.dataset);
  node.lastChild.textContent = behind ? `at step ${count(step)}` : "";
  node.dataset.shown = pictures[step];
  const image = await picture(pictures[step]);
  if (image && node.dataset.shown === pictures[step]) node.style.setProperty("--strip", `url(${image.src})`);
}

const repaint = () => near.forEach(paint);

// ---- real images in the table's head: a click leaves one out or takes it in

const chosenImages = () => page.images.filter(at => at < page.sources.count);

function sourceImages() {
  if (!page.sources) return make("span", {}, "pictures");
  const others = [...Array(page.sources.count).keys()].filter(at => !page.images.includes(at));
  const cell = (at, chosen) => make("button", {
    class: "cell", style: place(at), "data-image": at, "aria-pressed": String(chosen), "aria-label": `image ${at + 1}`,
    "data-tip": chosen ? "leave this image out" : "show this image",
  });
  return make("div", { class: "sources" }, make("div", { class: "strip" }, chosenImages().map(at => cell(at, true))),
    others.length > 0 && make("div", { class: "strip others" }, others.map(at => cell(at, false))));
}

function chooseImage(at) {
  const chosen = page.images.includes(at);
  if (chosen && chosenImages().length === 1) return;
  page.images = chosen ? page.images.filter(other => other !== at) : [...page.images, at].sort((a, b) => a - b);
  drawTable();
  element("trials").tHead.querySelector(`[data-image="${at}"]`).focus();
}

async function paintSources() {
  const image = page.sources && await picture(page.sources.picture);
  if (image) element("trials").tHead.style.setProperty("--strip", `url(${image.src})`);
}

// ---- the slider

let steps = []; // of all trials

function drawSlider() {
  const slider = element("step");
  steps = [...new Set(page.trials.flatMap(trial => stepsOf(trial.pictures)))].sort((a, b) => a - b);
  element("slider").hidden = !steps.length;
  slider.max = steps.length - 1;
  slider.value = page.step == null ? steps.length - 1 : steps.indexOf(shownStep(Object.fromEntries(steps.map(step => [step])), page.step));
  element("shown").value = count(page.step ?? steps.at(-1) ?? 0);
  slider.setAttribute("aria-valuetext", `${element("shown").value} steps`);
}

function slideTo(place) { // at the right end, pictures that come later are followed
  page.step = place >= steps.length - 1 ? null : steps[Math.max(0, place)];
  drawSlider();
  repaint();
  markStep();
}

element("step").addEventListener("input", event => slideTo(Number(event.target.value)));

// ---- the full-size view

const viewed = { trial: null, continued: false, image: 0 };

function view(trial, continued, image) {
  Object.assign(viewed, { trial: trial.id, continued, image });
  element("viewer").showModal();
  drawViewer();
}

async function drawViewer() {
  const trial = trialOf(viewed.trial);
  if (!element("viewer").open || !trial) return;
  const { name, pictures, pixels, score_text } = painted(trial, viewed.continued);
  const step = shownStep(pictures, page.step);
  const here = viewed.continued ? null : trial.curve.default?.[trial.curve.step.indexOf(step)];
  const marks = ["published", "best"].filter(mark => trial[mark]).join(" ");
  element("viewed").textContent = [[name, marks].filter(Boolean).join(" "), `image ${viewed.image + 1}`,
    `step ${count(step)}`, here != null && `score of this report ${digits(here)}`, score_text && `of the trial ${score_text}`,
    `${count(pixels)} x ${count(pixels)} pixels`].filter(Boolean).join(" · ");
  const wanted = JSON.stringify([viewed, step]);
  const [source, painting] = await Promise.all([picture(page.sources.picture), picture(pictures[step])]);
  if (wanted !== JSON.stringify([viewed, shownStep(pictures, page.step)])) return; // the reader has gone on
  crop(element("source"), source, page.sources.pixels, pixels);
  crop(element("painting"), painting, pixels, pixels);
}

// Show one image of a strip at its own pixels, as many times as large as there is room for.
function crop(canvas, image, edge, pixels) {
  canvas.hidden = !image;
  if (!image) return;
  canvas.width = canvas.height = edge;
  canvas.getContext("2d").drawImage(image, -viewed.image * edge, 0);
  const wide = innerWidth > innerHeight; // beside each other, else one above the other
  const room = Math.min(innerWidth / (wide ? 2 : 1) - 48, (innerHeight - 200) / (wide ? 1 : 2) - (wide ? 0 : 24));
  const scale = room >= pixels ? Math.floor(room / pixels) : room / pixels;
  canvas.style.width = canvas.style.height = `${scale * pixels}px`;
  canvas.style.imageRendering = pixels < 128 ? "pixelated" : "auto";
}

const MOVES = {
  image: by => viewed.image = (viewed.image + by + page.sources.count) % page.sources.count,
  step: by => slideTo(Number(element("step").value) + by),
  trial: by => {
    const rows = page.shown.flatMap(trial => [[trial, false], [trial, true]].filter(([trial, continued]) =>
      (!continued || trial.trained_on) && stepsOf(painted(trial, continued).pictures).length));
    const at = rows.findIndex(([trial, continued]) => trial.id === viewed.trial && continued === viewed.continued);
    const [trial, continued] = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    Object.assign(viewed, { trial: trial.id, continued });
  },
  close: () => element("viewer").close(),
};
const KEYS = { ArrowLeft: "image -1", ArrowRight: "image 1", ArrowUp: "trial -1", ArrowDown: "trial 1",
  "+": "step 1", "=": "step 1", "-": "step -1" };

function move(words) {
  const [what, by] = words.split(" ");
  MOVES[what](Number(by));
  drawViewer();
}

element("viewer").addEventListener("keydown", event => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  move(KEYS[event.key]);
});
element("viewer").addEventListener("click", event => {
  if (event.target === event.currentTarget) move("close"); // beside the content
  if (event.target.dataset.move) move(event.target.dataset.move);
});
addEventListener("resize", drawViewer);
