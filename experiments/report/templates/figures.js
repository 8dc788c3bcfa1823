"use strict";
// The figures of the trials that the filter leaves: drawn by plotly when they come into view, and again when something changes.

const BEST = "#e0672f", PUBLISHED = "#2a7fde", FAINT = "rgba(128, 128, 128, .25)";
const CURVES = 30; // with more trials, those that are not coloured share one line of plotly's, which is faster
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plain = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // plotly reads some HTML
const plotOf = id => element(id).querySelector(".plot");

const scoreOf = trial => trial.scores?.default ?? null;
const isFinished = trial => trial.state === "succeeded";
const special = trial => page.highlighted.get(trial.id) ?? (trial.best ? BEST : trial.published ? PUBLISHED : null);
const symbolOf = trial => isFinished(trial) ? "circle" : isFailed(trial) ? "x-thin-open" : "circle-open";
const nameOf = trial => [String(trial.number), trial.published && "published", trial.best && "best"].filter(Boolean).join(" ");
const labelOf = part => page.search.parts.find(({ name }) => name === part)?.label ?? part;

function describe(trial) {
  const score = trial.score_text || "no score";
  const parameters = Object.entries(trial.parameters).map(([name, value]) => `${words(name)} ${digits(value)}`);
  return [`trial ${nameOf(trial)}: ${score}, ${trial.state}`, ...parameters].map(plain).join("<br>");
}

// ---- dimensions: parameters, and ratios of loss weights, each on the range and the scale of the search space

function dimensions() {
  const names = parameterNames();
  const weights = names.filter(name => name.endsWith("_weight") && name !== "adversarial_weight");
  const base = dimension("adversarial_weight", trial => trial.parameters.adversarial_weight);
  const ratios = base.range[0] > 0 && names.includes("adversarial_weight") ? weights.map(name => {
    const over = dimension(name, trial => trial.parameters[name]);
    return { name: `${words(name.replace(/_weight$/, ""))} / adversarial`, log: true, value: trial => over.value(trial) / base.value(trial),
      range: [over.range[0] / base.range[1], over.range[1] / base.range[0]] };
  }).filter(ratio => ratio.range[0] > 0) : [];
  return [...names.map(name => dimension(name, trial => trial.parameters[name])), ...ratios].filter(varies);
}

function dimension(key, value) {
  const { _type: type = "", _value: given = [] } = page.search.space[key] ?? {};
  const values = page.trials.map(value).filter(found => found != null);
  if (type === "choice" || values.some(found => typeof found !== "number")) {
    const categories = [...new Set([...(type === "choice" ? given : []), ...values].map(String))];
    return { key, name: words(key), value: trial => value(trial) == null ? null : String(value(trial)), categories, range: [0, categories.length - 1] };
  }
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const bounded = /^q?(log)?uniform$|^randint$/.test(type);
  return { key, name: words(key), value, range: bounded ? given.slice(0, 2) : [low, high],
    log: type ? type.includes("log") : low > 0 && high / low > 10 };
}

const varies = ({ value }) => new Set(page.trials.map(value).filter(found => found != null)).size > 1;
const scaled = (dimension, value) => dimension.categories ? dimension.categories.indexOf(value) : dimension.log ? Math.log10(value) : value;
const ends = dimension => dimension.range.map(value => dimension.log ? Math.log10(value) : value);

// Return where in its range a trial lies, from 0 to 1; null without a value.
function fraction(dimension, trial) {
  const [low, high] = ends(dimension);
  const value = dimension.value(trial);
  return value == null ? null : high === low ? 0.5 : (scaled(dimension, value) - low) / (high - low);
}

// Return plotly's axis of a dimension, a little longer than its range.
function axisOf(dimension) {
  const { categories } = dimension;
  if (categories) return axis({ type: "category", categoryarray: categories, categoryorder: "array", range: [-0.5, categories.length - 0.5] });
  const [low, high] = ends(dimension);
  const margin = 0.05 * (high - low || 1);
  const range = [low - margin, high + margin];
  if (!dimension.log) return axis({ range });
  const tickvals = logTicks(...dimension.range);
  return axis({ type: "log", range, tickvals, ticktext: tickvals.map(tick => tick < 0.001 ? tick.toExponential(0) : digits(tick)) });
}

// Return powers of ten in a range, or with few of them also twice and five times these.
function logTicks(low, high) {
  const powers = Array.from({ length: 50 }, (_, at) => at - 25);
  const ticks = steps => powers.flatMap(power => steps.map(step => step * 10 ** power)).filter(tick => tick >= low * 0.999 && tick <= high * 1.001);
  return [[1, 2, 5], [1, 3], [1]].map(ticks).find(found => found.length <= 4) ?? ticks([1]).filter((_, at, all) => at % Math.ceil(all.length / 4) === 0);
}

// ---- what all plots share

const axis = options => ({ gridcolor: FAINT, linecolor: FAINT, zeroline: false, automargin: true, nticks: 6, tickformat: ".3~g", ...options });

function plot(id, traces, layout) {
  const touch = matchMedia("(pointer: coarse)").matches; // a finger scrolls the page
  Plotly.react(plotOf(id), traces, {
    autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { color: css("--text"), family: "system-ui, sans-serif", size: 12 }, margin: { l: 55, r: 15, t: 25, b: 45 },
    hoverlabel: { align: "left" }, uirevision: "keep", dragmode: touch ? false : "zoom", ...layout,
  }, { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] }); // none that sends a chart away
  plotOf(id).removeAllListeners("plotly_click");
  plotOf(id).on("plotly_click", ({ points }) => points[0].customdata && highlight(trialOf(points[0].customdata)));
}

// Return marks of trials: the coloured ones are drawn last.
function marks(trials, x, y, options = {}) {
  const sorted = [...trials].sort((a, b) => Boolean(special(a)) - Boolean(special(b)));
  return { type: "scatter", mode: "markers", x: sorted.map(x), y: sorted.map(y), customdata: sorted.map(trial => trial.id),
    text: sorted.map(describe), hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
    marker: { color: sorted.map(trial => special(trial) ?? css("--other")), symbol: sorted.map(symbolOf),
      size: sorted.map(trial => special(trial) ? 11 : 8), opacity: 1, line: { width: 1.5, color: sorted.map(trial => special(trial) ?? css("--other")) } }, ...options };
}

const room = id => plotOf(id).clientWidth;

// Return the values of the facet that is chosen, each with its trials.
function facets(id, candidates) {
  const select = document.querySelector(`[data-facet=${id}]`);
  const names = candidates.filter(({ categories }) => categories).map(({ name }) => name);
  offer(select, ["none", ...names], names[0] ?? "none");
  const facet = candidates.find(({ name }) => name === select.value);
  const panels = facet ? facet.categories.map(value => [`${facet.name}: ${value}`, page.shown.filter(trial => facet.value(trial) === value)]) : [["", page.shown]];
  return { facet, panels: panels.filter(([, trials]) => trials.length || !facet) };
}

// Set the options of a select, and keep its choice.
function offer(select, names, preferred, labels = names) {
  const old = [...select.options].map(option => option.value);
  if (old.join("\n") === names.join("\n")) return;
  const chosen = names.includes(select.value) ? select.value : preferred;
  select.replaceChildren(...names.map((name, at) => make("option", { value: name, selected: name === chosen }, labels[at])));
}

// ---- the figures

function drawCurves() {
  const parts = page.search.parts.map(({ name }) => name);
  offer(element("curve-part"), parts, "default", parts.map(labelOf));
  const part = element("curve-part").value;
  const trials = page.shown.filter(trial => trial.curve?.[part]?.some(value => value != null));
  const grey = css(page.highlighted.size ? "--faint" : "--other");
  const smoothed = trial => smooth(trial.curve[part], Number(element("curve-smooth").value));
  const line = (trial, extra) => ({ x: trial.curve.step, y: smoothed(trial), type: "scatter", mode: "lines+markers",
    marker: { size: 4 }, customdata: trial.curve.step.map(() => trial.id), name: nameOf(trial),
    hovertemplate: `trial ${plain(nameOf(trial))}, step %{x}: %{y:.3g}<extra></extra>`, ...extra });
  const coloured = trials.filter(special);
  const others = trials.filter(trial => !special(trial));
  const lines = others.length <= CURVES ? others.map(trial => line(trial, { line: { color: grey, width: 1 }, showlegend: room("curves") > 600 })) : [joined(others, smoothed, grey)];
  plot("curves", [...lines, ...coloured.map(trial => line(trial, { line: { color: special(trial), width: 3 } }))], {
    height: 420, showlegend: true, legend: { orientation: "h", y: -0.25 }, shapes: stepMark(), uirevision: part,
    xaxis: axis({ title: { text: "step" } }), yaxis: axis({ title: { text: plain(labelOf(part)) }, type: element("curve-log").checked ? "log" : "linear", rangemode: "nonnegative" }),
  });
}

// Return many trials' curves as one line with gaps.
function joined(trials, smoothed, colour) {
  const gaps = values => trials.flatMap(trial => [...values(trial), null]);
  return { type: "scatter", mode: "lines", name: "other trials", line: { color: colour, width: 1 }, x: gaps(trial => trial.curve.step), y: gaps(smoothed),
    customdata: gaps(trial => trial.curve.step.map(() => trial.id)), text: gaps(trial => trial.curve.step.map(() => nameOf(trial))),
    hovertemplate: "trial %{text}, step %{x}: %{y:.3g}<extra></extra>" };
}

// Return the exponential moving average, corrected for its start as TensorBoard's.
function smooth(values, weight) {
  let [sum, norm] = [0, 0];
  return values.map(value => {
    if (value == null) return null;
    [sum, norm] = [weight * sum + (1 - weight) * value, weight * norm + 1 - weight];
    return sum / norm;
  });
}

const stepMark = () => page.step == null ? [] : [{ type: "line", xref: "x", yref: "paper", x0: page.step, x1: page.step, y0: 0, y1: 1, line: { color: css("--other"), dash: "dot", width: 1 } }];

function markStep() {
  if (plotOf("curves").data) Plotly.relayout(plotOf("curves"), { shapes: stepMark() });
}

function drawImportance() {
  const rows = [...page.importance.rows].reverse();
  fill(element("importance-note"), page.importance.note);
  plotOf("importance").hidden = !rows.length;
  if (!rows.length) return;
  const above = rows.map(({ importance, high }) => Math.max(0, high - importance));
  const below = rows.map(({ importance, low }) => Math.max(0, importance - low));
  plot("importance", [{ type: "bar", orientation: "h", x: rows.map(row => row.importance), y: rows.map(row => plain(words(row.name))),
    error_x: { type: "data", array: above, arrayminus: below, color: css("--text") }, marker: { color: css("--other") },
    hovertemplate: "%{y}: %{x:.2f}<extra></extra>" }], {
    height: 105 + 32 * rows.length, margin: { l: 55, r: 15, t: 25, b: 60 }, yaxis: axis({}), xaxis: axis({ rangemode: "tozero", title: { text: "share of the explained<br>variance, adds up to 1" } }) });
}

function drawSlices() {
  const all = dimensions();
  const { facet, panels } = facets("slices", all);
  const shown = all.filter(dimension => dimension !== facet);
  const log = element("slices-log").checked;
  const scores = page.shown.map(scoreOf).filter(score => score != null && (!log || score > 0));
  const floor = log ? Math.min(1, ...scores) / 2 : 0; // trials without a score are at the bottom
  const height = trial => log ? Math.max(floor, scoreOf(trial) ?? 0) : scoreOf(trial) ?? 0;
  const columns = Math.max(1, Math.min(shown.length, Math.floor(room("slices") / 160)));
  const lines = Math.ceil(shown.length / columns);
  const rows = lines * panels.length;
  const [traces, layout] = [[], { height: 25 + 230 * rows, shapes: [], annotations: [], margin: { l: 75, r: 15, t: 20, b: 5 } }];
  panels.forEach(([title, trials], panel) => shown.forEach((dimension, at) => {
    const [row, column] = [panel * lines + Math.floor(at / columns), at % columns];
    const name = traces.length ? traces.length + 1 : "";
    const top = 1 - row / rows;
    traces.push(marks(trials, dimension.value, height, { xaxis: `x${name}`, yaxis: `y${name}` }));
    layout[`xaxis${name}`] = { ...axisOf(dimension), title: { text: plain(dimension.name), standoff: 4, font: { size: 11 } }, tickangle: 0, anchor: `y${name}`,
      domain: [column / columns, (column + 0.9) / columns], automargin: false };
    layout[`yaxis${name}`] = axis({ anchor: `x${name}`, domain: [top - 0.76 / rows, top - 0.1 / rows], type: log ? "log" : "linear", rangemode: "nonnegative",
      matches: name ? "y" : undefined, showticklabels: !column, title: { text: column ? "" : "score" }, automargin: false });
    layout.shapes.push(...beyond(dimension, `x${name}`, `y${name}`));
    if (title && at % columns === 0) layout.annotations.push({ text: `<b>${plain(title)}</b>`, x: 0, xref: "paper", xanchor: "left",
      y: top - 0.1 / rows, yref: "paper", yanchor: "bottom", showarrow: false });
  }));
  plot("slices", traces, layout);
}

// Return shapes that shade what lies outside of the search space.
function beyond(dimension, x, y) {
  if (dimension.categories) return [];
  const [low, high] = dimension.range;
  const far = dimension.log ? [low / 1e3, high * 1e3] : [low - 10 * (high - low), high + 10 * (high - low)];
  return [[far[0], low], [high, far[1]]].map(([x0, x1]) => ({ type: "rect", layer: "below", xref: x, yref: `${y} domain`, x0, x1, y0: 0, y1: 1, fillcolor: FAINT, line: { width: 0 } }));
}

function drawContour() {
  const all = dimensions();
  const { panels } = facets("contour", all);
  const numeric = all.filter(({ categories }) => !categories);
  const names = numeric.map(({ name }) => name);
  offer(element("contour-x"), names, names[0]);
  offer(element("contour-y"), names, names[1]);
  const [x, y] = ["contour-x", "contour-y"].map(id => numeric.find(({ name }) => name === element(id).value));
  const [traces, columns] = [[], room("contour") < 700 ? 1 : panels.length];
  const rows = Math.ceil(panels.length / columns);
  const layout = { height: 25 + 400 * rows, annotations: [], margin: { l: 60, r: 15, t: 20, b: 5 } };
  const scores = page.shown.filter(isFinished).map(scoreOf);
  panels.forEach(([title, trials], at) => {
    const name = at ? at + 1 : "";
    const top = 1 - Math.floor(at / columns) / rows;
    const place = { xaxis: `x${name}`, yaxis: `y${name}` };
    const finished = trials.filter(isFinished);
    if (finished.length > 2) traces.push({ ...surface(finished, x, y), ...place, zmin: Math.min(...scores), zmax: Math.max(...scores) });
    traces.push(marks(trials, x.value, y.value, place));
    layout[`xaxis${name}`] = { ...axisOf(x), title: { text: plain(x.name), standoff: 4 }, anchor: `y${name}`, automargin: false,
      domain: [(at % columns) / columns, (at % columns + 0.9) / columns] };
    layout[`yaxis${name}`] = { ...axisOf(y), title: { text: at % columns ? "" : plain(y.name) }, anchor: `x${name}`, automargin: false,
      domain: [top - 0.86 / rows, top - 0.05 / rows] };
    if (title) layout.annotations.push({ text: `<b>${plain(title)}</b>`, xref: `x${name} domain`, x: 0, yref: "paper", y: top - 0.05 / rows, xanchor: "left", yanchor: "bottom", showarrow: false });
  });
  plot("contour", traces, layout);
}

// Return plotly's contour over scattered trials: means in a grid of cells, between which plotly interpolates.
function surface(trials, x, y, cells = 24) {
  const centre = (dimension, at) => {
    const [low, high] = ends(dimension);
    const value = low + (high - low) * at / (cells - 1);
    return dimension.log ? 10 ** value : value;
  };
  const cell = (dimension, trial) => Math.min(cells - 1, Math.max(0, Math.round(fraction(dimension, trial) * (cells - 1))));
  const grid = Array.from({ length: cells }, () => Array.from({ length: cells }, () => []));
  for (const trial of trials) grid[cell(y, trial)][cell(x, trial)].push(scoreOf(trial));
  const mean = values => values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  const places = [...Array(cells).keys()];
  return { type: "contour", x: places.map(at => centre(x, at)), y: places.map(at => centre(y, at)), z: grid.map(row => row.map(mean)), connectgaps: true,
    colorscale: [[0, css("--low")], [1, css("--high")]], line: { width: 0 }, hoverinfo: "skip", colorbar: { title: { text: "score" }, outlinewidth: 0, thickness: 12, tickformat: ".2~g" } };
}

function drawTradeoff() {
  const trials = page.shown.filter(trial => trial.scores?.style != null && trial.scores.content != null);
  const [style, content] = [trial => trial.scores.style, trial => trial.scores.content];
  const finished = trials.filter(isFinished);
  const front = finished.filter(a => !finished.some(b => style(b) >= style(a) && content(b) >= content(a) && (style(b) > style(a) || content(b) > content(a))))
    .sort((a, b) => style(a) - style(b));
  const labelled = trials.filter(trial => special(trial) || front.includes(trial));
  plot("tradeoff", [
    { type: "scatter", mode: "lines", x: front.map(style), y: front.map(content), line: { color: css("--other"), dash: "dot" }, hoverinfo: "skip" },
    marks(trials, style, content),
    { type: "scatter", mode: "markers+text", marker: { size: 14, opacity: 0 }, x: labelled.map(style), y: labelled.map(content), text: labelled.map(trial => plain(nameOf(trial))), textposition: "top center", hoverinfo: "skip", cliponaxis: false },
  ], { height: 420, xaxis: axis({ title: { text: "style" } }), yaxis: axis({ title: { text: "content" } }) });
}

// Parallel coordinates: plotly's own need WebGL, and colours by a scale. On a narrow screen the axes lie.
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function drawParallel() {
  const score = { name: "score", value: scoreOf, range: [Math.min(0, ...page.shown.map(scoreOf)), Math.max(...page.shown.map(scoreOf), 1e-12)] };
  const axes = [...dimensions().filter(({ key }) => key), score];
  const width = room("parallel");
  const lying = width < 130 * axes.length;
  const [length, between] = lying ? [width - 40, 56] : [260, (width - 120) / (axes.length - 1)];
  const point = (at, share) => lying ? [20 + share * length, 30 + at * between] : [60 + at * between, 50 + (1 - share) * length];
  const root = svg("svg", { width, height: lying ? axes.length * between + 20 : length + 80, role: "img", "aria-label": "a line for each trial through its parameters and its score" });
  for (const trial of [...page.shown].sort((a, b) => Boolean(special(a)) - Boolean(special(b)))) {
    const points = axes.map((dimension, at) => [fraction(dimension, trial), at]).filter(([share]) => share != null).map(([share, at]) => point(at, share).join());
    root.append(svg("polyline", { points: points.join(" "), "data-trial": trial.id, stroke: special(trial) ?? css("--other"),
      "stroke-width": special(trial) ? 3 : 1, "stroke-opacity": special(trial) ? 1 : 0.6, "stroke-dasharray": isFinished(trial) ? "none" : "4 3" }));
  }
  axes.forEach((dimension, at) => {
    const [[x1, y1], [x2, y2]] = [point(at, 0), point(at, 1)];
    const text = (x, y, anchor, content, weight = 400) => svg("text", { x, y, "text-anchor": anchor, "font-weight": weight }, content);
    const ticks = dimension.categories ?? dimension.range.map(digits);
    root.append(svg("line", { x1, y1, x2, y2 }), lying ? text(x1, y1 - 8, "start", dimension.name, 600) : text(x1, 20, at ? at === axes.length - 1 ? "end" : "middle" : "start", dimension.name, 600));
    ticks.forEach((tick, index) => {
      const [x, y] = point(at, ticks.length > 1 ? index / (ticks.length - 1) : 0.5);
      root.append(lying ? text(x, y + 14, index ? index === ticks.length - 1 ? "end" : "middle" : "start", tick) : text(x + (at === axes.length - 1 ? -5 : 5), y + (index ? -4 : 12), at === axes.length - 1 ? "end" : "start", tick));
    });
  });
  plotOf("parallel").replaceChildren(root);
}

for (const kind of ["mouseover", "click"]) plotOf("parallel").addEventListener(kind, event => {
  const trial = trialOf(event.target.dataset.trial);
  if (!trial) return;
  if (kind === "click") return highlight(trial);
  event.target.parentNode.insertBefore(event.target, event.target.parentNode.querySelector("line")); // above other lines
  element("under-pointer").textContent = `trial ${nameOf(trial)}: ${trial.score_text || trial.state}; ` + Object.entries(trial.parameters).map(([name, value]) => `${words(name)} ${digits(value)}`).join(", ");
});

// ---- when to draw

const scored = () => page.trials.filter(trial => scoreOf(trial) != null).length;
const FIGURES = { // a function that draws, and one that tells whether there is anything to draw
  curves: [drawCurves, () => page.trials.some(trial => trial.curve?.step?.length)],
  importance: [drawImportance, () => page.importance.rows.length || page.importance.note],
  slices: [drawSlices, () => scored() > 1 && dimensions().length],
  parallel: [drawParallel, () => scored() > 1 && dimensions().length],
  contour: [drawContour, () => page.trials.filter(isFinished).length > 2 && dimensions().filter(({ categories }) => !categories).length > 1],
  tradeoff: [drawTradeoff, () => page.trials.some(trial => trial.scores?.style != null && trial.scores.content != null)],
};
const [inView, stale] = [new Set(), new Set()];
const watcher = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target.id);
  drawStale();
}, { rootMargin: "300px" });

function redraw(...ids) {
  for (const id of ids.length ? ids : Object.keys(FIGURES)) {
    element(id).hidden = !FIGURES[id][1]();
    stale.add(id);
  }
  drawStale();
}

function drawStale() {
  for (const id of stale) {
    if (element(id).hidden || !inView.has(id) || typeof Plotly === "undefined") continue;
    stale.delete(id);
    FIGURES[id][0]();
  }
}

Object.keys(FIGURES).forEach(id => watcher.observe(element(id)));
element("figures").addEventListener("input", event => redraw(event.target.closest("section").id));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("resize", () => redraw("slices", "parallel", "contour"));
addEventListener("load", drawStale); // plotly is read last
