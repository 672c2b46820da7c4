// The session as a CSV table, with the columns of `predict`, and on paper: one page per image.
import { drawEvidence, lesionShapes } from "./viewer.js";
import { failure, showResult } from "./result.js";
import { element, labelName, lesionNote, refusalOf, svg, text } from "./text.js";

const NOT_IN_TABLE = new Set(["folds", "preview", "model", "neighbours", "doubt_codes", "error_code", "lesion"]);
const PAPER_WIDTH = 340; // pixels of the scale on paper

export function csv(items) {
  const answers = items.map((item) => row(item));
  const columns = [...new Set(answers.flatMap((each) => Object.keys(each)))];
  const lines = answers.map((each) => columns.map((column) => cell(each[column])).join(","));
  return "\ufeff" + [columns.join(","), ...lines].join("\r\n") + "\r\n"; // the mark tells spreadsheets that it is UTF-8
}

function row(item) {
  const { answer } = item;
  if (!answer) return { image: item.name, error: unanswered(item) };
  const values = Object.entries(answer).filter(([name]) => !NOT_IN_TABLE.has(name));
  const model = answer.model;
  return {
    ...Object.fromEntries(values),
    image: item.name, // as the page shows it: browsers send quotes and line ends in names encoded
    run: model.run,
    model: model.fingerprint,
    decision_rules: model.decision_rules,
    version: model.version,
    purpose: text("purpose"),
  };
}

const unanswered = (item) => (item.problem ? refusalOf(item.problem) : text("busy"));

function cell(value) {
  if (value == null) return "";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  const words = Array.isArray(value) ? value.join(" ") : String(value);
  const safe = /^[=+\-@\t\r]/.test(words) ? `'${words}` : words; // a spreadsheet would run it as a formula
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function download(name, content) {
  const url = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  const link = element("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function layOutPaper(items, model) {
  const pages = items.map((item) => sheet(item, model));
  document.getElementById("paper").replaceChildren(...pages);
}

function sheet(item, model) {
  const pictures = element("div", { class: "sheet-pictures" });
  const lesion = item.answer?.lesion;
  if (item.url) pictures.append(picture(item.url, lesion && outlineOf(lesion)));
  if (item.url && lesion) pictures.append(element("p", { class: "small" }, lesionNote(lesion)));
  const map = item.evidence?.[model.headline];
  if (item.url && map?.grid) {
    const caption = `${text("evidence")} ${labelName(model.headline)}. ${map.note}`;
    pictures.append(picture(item.url, mapOf(map)), element("p", { class: "small" }, caption));
  }
  const result = item.answer ? showResult(item.answer, model, PAPER_WIDTH) : failure(unanswered(item));
  const cases = result.querySelector(".neighbours");
  if (cases) pictures.append(cases);
  const time = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "long", timeStyle: "short" });
  return element(
    "section",
    { class: "sheet" },
    element("p", { class: "sheet-purpose" }, text("purpose"), model.model.synthetic ? ` ${text("synthetic")}` : ""),
    element("h2", {}, item.name),
    element("div", { class: "sheet-columns" }, pictures, result),
    element("p", { class: "small" }, `${time.format(new Date())} · ${foot(model)}`),
  );
}

const picture = (url, over) => element("div", { class: "sheet-picture" }, element("img", { src: url, alt: "" }), over);

const outlineOf = (lesion) =>
  svg("svg", { class: "outline", viewBox: "0 0 1 1", preserveAspectRatio: "none" }, ...lesionShapes(lesion));

function mapOf(map) {
  const canvas = element("canvas");
  drawEvidence(canvas, map.grid, map.window);
  return canvas;
}

export function foot(model) {
  const { fingerprint, decision_rules, version } = model.model;
  return text("foot", { fingerprint: fingerprint.slice(0, 12), rules: decision_rules.slice(0, 12), version });
}
