// Texts in the reader's language, numbers in its form, and small helpers to build elements.
import english from "./strings.en.js";

let strings = english;
let language = "en";

export async function loadLanguage() {
  const available = await (await fetch("/page/languages.json")).json();
  const chosen = navigator.languages.map((each) => each.slice(0, 2)).find((each) => available.includes(each));
  if (chosen && chosen !== "en") {
    strings = { ...english, ...(await import(`./strings.${chosen}.js`)).default };
    language = chosen;
  }
  document.documentElement.lang = language;
}

export function text(name, values = {}) {
  return fill(strings[name], values);
}

export function plural(name, count) {
  const forms = strings[name];
  return fill(forms[new Intl.PluralRules(language).select(count)] ?? forms.other, { count });
}

// A doubt, an error of an image, or a refusal in the reader's language; in the server's words for an unknown code.
function reason(group, { code, values }, sentence) {
  const template = strings[group][code];
  return template ? fill(template, Object.fromEntries(Object.entries(values).map(readable))) : sentence;
}

function readable([name, value], _, all) {
  if (typeof value === "number") return [name, Number.isInteger(value) ? String(value) : number(value)];
  if (value === null || typeof value !== "object") return [name, value];
  const { folds } = Object.fromEntries(all);
  const calls = Object.entries(value).map(([label, count]) => text("calledBy", { label: labelName(label), count, folds }));
  return [name, new Intl.ListFormat(language, { type: "conjunction" }).format(calls)];
}

// All doubts, with what could not be checked: no list may show fewer than another.
export function doubtsOf(answer) {
  const found = answer.doubts.map((each, at) => reason("doubts", answer.doubt_codes[at], each));
  if (answer.seen_in_training === "not checked") found.push(text("notChecked"));
  if (answer.out_of_distribution == null) found.push(text("notMeasured"));
  return found;
}

export const errorOf = (answer) => reason("errors", answer.error_code, answer.error);

// How far to trust a map of evidence, or why there is none.
export function noteOf({ note, note_code: { code, values } }) {
  const signed = new Intl.NumberFormat(language, { minimumFractionDigits: 3, maximumFractionDigits: 3, signDisplay: "always" });
  const changes = ["change", "elsewhere"].filter((name) => name in values).map((name) => [name, signed.format(values[name])]);
  return reason("evidenceNotes", { code, values: { ...values, ...Object.fromEntries(changes) } }, note);
}

export function refusalOf(problem) {
  if (!problem.status) return text(problem.unreadable ? "unreadable" : "offline");
  return reason(problem.status === 422 ? "errors" : "refusals", problem, problem.message);
}

// What the models see of a picture whose lesion was looked for.
export function lesionNote({ region, mask }) {
  if (region === "lesion") return text("lesionSeen");
  return { none: text("lesionUnseen"), lesion: text("lesionMask"), empty: text("lesionMaskEmpty") }[mask];
}

export const list = (name) => strings[name];
export const labelName = (label) => strings.labels[label] ?? label;
// Within a sentence; a label of the user's own stays in capitals.
export const labelInText = (label) => strings.labels[label]?.toLowerCase() ?? label;

function fill(template, values) {
  return template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// A share of 0 to 1. What is not quite 0 or 1 is never rounded to it: a sensitivity of 0.997 misses somebody.
export function percent(value, digits = 1) {
  const options = { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits };
  const { format } = new Intl.NumberFormat(language, options);
  const least = 10 ** -(digits + 2);
  if (value > 0 && value < least / 2) return `<${format(least)}`;
  if (value < 1 && value > 1 - least / 2) return `>${format(1 - least)}`;
  return format(value);
}

const MOST_DIGITS = 4;

// The digits at which a percentage reads as another one than each of the thresholds that it differs from.
export function digitsApart(value, thresholds) {
  let digits = 1;
  const same = (each) => each !== value && percent(each, digits) === percent(value, digits);
  while (digits < MOST_DIGITS && thresholds.some(same)) digits++;
  return digits;
}

export function number(value, digits = 2) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

// An element with attributes and children. Texts become text nodes: nothing is ever parsed as HTML.
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) created.addEventListener(name.slice(2), value);
    else if (value === true) created.setAttribute(name, "");
    else if (value !== false && value != null) created.setAttribute(name, value);
  }
  created.append(...children.filter((child) => child != null));
  return created;
}

export function svg(tag, attributes = {}, ...children) {
  const created = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children);
  return created;
}

export function fillPage() {
  for (const each of document.querySelectorAll("[data-string]")) each.textContent = text(each.dataset.string);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", text(each.dataset.label));
  for (const [keys, meaning] of list("keyList"))
    document.getElementById("key-list").append(element("dt", {}, element("kbd", {}, keys)), element("dd", {}, meaning));
  for (const step of list("steps")) document.getElementById("steps").append(element("li", {}, step));
}
