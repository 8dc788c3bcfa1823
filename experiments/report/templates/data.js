"use strict";
// The document that the page shows, how its reader has arranged it, and helpers for all other scripts.

const element = id => document.getElementById(id);
const embedded = id => JSON.parse(element(id).textContent);

const page = {
  ...embedded("data"),
  step: null, // on the slider; null is the newest
  images: [0, 1, 2, 3, 4, 5, 6, 7], // that are shown
  sort: { key: "default", down: true },
  filter: "",
  opened: new Set(), // ids of trials whose details are shown
  highlighted: new Map(), // colours by id
  folded: new Set(), // groups of columns
  all: false, // also columns that say nothing
  shown: [], // trials that pass the filter, as the table orders them
};

// Return an element with attributes and children. Strings become text, never HTML.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child != null && child !== false));
  return node;
}

// Make `old` like `fresh`, and keep every node that can stay: focus and typed text are in the nodes.
// data-key says which child is which; what is marked data-own draws its content itself.
function morph(old, fresh) {
  if (old.isEqualNode(fresh) || (old.dataset?.own && old.dataset.own === fresh.dataset?.own)) return;
  if (old.nodeName !== fresh.nodeName || old.dataset?.own) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) return void (old.data = fresh.data);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const keys = new Set([...fresh.children].map(child => child.dataset.key));
  for (const child of [...old.children]) if (!keys.has(child.dataset.key)) child.remove();
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = child.dataset?.key;
    const same = key ? [...old.children].find(other => other.dataset.key === key) : next?.dataset?.key ? null : next;
    if (same && same === next) next = next.nextSibling;
    else old.insertBefore(same ?? child, next);
    if (same) morph(same, child);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

// Set the children of a node; it is hidden if there are none.
function fill(node, ...children) {
  const fresh = node.cloneNode(false);
  fresh.append(...children.flat().filter(child => child));
  fresh.hidden = !fresh.hasChildNodes();
  morph(node, fresh);
}

// ---- numbers and times as a reader wants them

function digits(value) { // three significant ones
  if (typeof value !== "number") return value == null ? "" : String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size >= 1e-4 && size < 1e6 ? String(Number(value.toPrecision(3))) : value.toExponential(2).replace(/\.?0+e/, "e");
}

const count = number => number.toLocaleString("en");

function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.round(seconds)} s`;
}

function clock(epoch) { // the time, and the day if it is another one
  const time = new Date(epoch * 1000);
  const day = time.toDateString() === new Date().toDateString() ? "" : `${time.toDateString().slice(0, 10)} `;
  return day + time.toTimeString().slice(0, 5);
}

// ---- trials and their columns

const isFailed = trial => ["failed", "diverged"].includes(trial.state);
const trialOf = id => page.trials.find(trial => trial.id === id);
const words = name => name.replaceAll("_", " ");

const parameterNames = () => [...new Set(page.trials.flatMap(trial => Object.keys(trial.parameters)))];

function columns() {
  const part = ({ name, label, better, help }) => ({
    key: name, label, better, help, group: name === "default" ? null : "parts", value: trial => trial.scores?.[name],
  });
  const parameter = name => ({ key: `parameter ${name}`, label: words(name), group: "parameters",
    help: name in page.search.published ? `published: ${digits(page.search.published[name])}` : null,
    value: trial => trial.parameters[name] });
  return [
    { key: "number", label: "trial", value: trial => trial.number },
    { key: "state", label: "state", value: trial => trial.state },
    ...page.search.parts.map(part), ...parameterNames().map(parameter),
  ];
}

// Return why a column says nothing, or null if it does.
function silence(column) {
  if (!column.group || page.trials.length < 2) return null;
  const values = new Set(page.trials.map(trial => digits(column.value(trial))).filter(text => text !== ""));
  if (!values.size) return "empty";
  if (values.size === 1) return `${[...values][0]} everywhere`;
  return column.better === null ? "no measure of quality" : null;
}

// ---- the table's order and its filter

function compare(a, b, down) { // rows without a value come last, both ways
  if (a == null || b == null) return (a == null) - (b == null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

// Set `page.shown`, and return names in the filter that no trial has.
function arrange() {
  const { key, down } = page.sort;
  const column = columns().find(other => other.key === key) ?? columns()[0];
  const order = [...page.trials].sort((a, b) => b.pinned - a.pinned || compare(column.value(a), column.value(b), down));
  const { test, unknown } = filterOf(page.filter);
  page.shown = order.filter(test);
  return unknown;
}

// What a filter may compare: labels and names of parts, parameters, settings, and the rest of a row.
function comparable(trial) {
  const named = page.search.parts.map(({ name, label }) => [words(label).replaceAll(" ", "_"), trial.scores?.[name]]);
  const values = { number: trial.number, state: trial.state, seconds: trial.seconds, step: trial.step,
    ...trial.settings, ...trial.parameters, ...trial.scores, ...Object.fromEntries(named) };
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name.toLowerCase(), value]));
}

// Return a test of trials, which must match all words of `text`: name<value, name>value, name=value, or plain text.
function filterOf(text) {
  const names = new Set(page.trials.flatMap(trial => Object.keys(comparable(trial))));
  const parsed = text.toLowerCase().split(/\s+/).filter(Boolean).map(word => [word, ...(word.match(/^([^<>=]+)([<>=])(.*)$/) ?? []).slice(1)]);
  const unknown = parsed.map(([, name]) => name).filter(name => name && !names.has(name));
  const test = trial => {
    const values = comparable(trial);
    const marks = ["best", "published", "level", "pinned"].filter(mark => trial[mark]);
    const chosen = Object.values({ ...trial.settings, ...trial.parameters }).filter(value => typeof value === "string");
    const plain = [trial.number, trial.id, trial.state, trial.note, ...marks, ...chosen].join(" ").toLowerCase();
    return parsed.every(([word, name, sign, limit]) => {
      if (!name) return plain.includes(word);
      const value = values[name];
      if (limit === "") return true; // still being typed
      if (value == null) return false;
      if (sign === "=") return digits(value).toLowerCase() === digits(isNaN(limit) ? limit : Number(limit)).toLowerCase();
      return sign === "<" ? value < Number(limit) : value > Number(limit);
    });
  };
  return { test, unknown };
}
