// One image's answer: doubts first, then the probability on its scale, the other labels, and the nearest known cases.
import { drawScale } from "./scale.js";
import { knownPicture } from "./server.js";
import { digitsApart, doubtsOf, element, errorOf, labelInText, labelName, list, number, percent, plural, text } from "./text.js";

export function showResult(answer, model, width, url) {
  if (answer.error) return failure(text("failedText", { reason: sentence(errorOf(answer)) }));
  const label = model.headline;
  return element(
    "div",
    { class: "answer" },
    doubts(answer),
    headline(answer, model, label),
    element("div", { class: "card" }, scaleBox(answer, model, label, width), pointsTable(answer, model, label)),
    others(answer, model),
    neighbours(answer, url),
    element("p", { class: "quiet small hash" }, text("technical", { ...answer, sha256: answer.sha256 })),
  );
}

export function failure(message, retry, title = text("failedTitle")) {
  const button = retry && element("button", { class: "primary", onclick: retry }, text("retry"));
  return element(
    "div",
    { class: "card failure", role: "alert" },
    element("h3", {}, title),
    element("p", {}, message),
    button,
  );
}

function sentence(message) {
  const whole = message.charAt(0).toUpperCase() + message.slice(1);
  return whole.replace(/\.$/, "");
}

function doubts(answer) {
  const sentences = doubtsOf(answer);
  if (!sentences.length) return element("p", { class: "no-doubts quiet" }, text("noDoubts"));
  return element(
    "section",
    { class: "card doubts" },
    element("h3", {}, plural("doubtsTitle", sentences.length)),
    element("ul", {}, ...sentences.map((each) => element("li", {}, each))),
  );
}

function digitsOf(answer, { threshold, operating_points: points }, label) {
  return digitsApart(answer[label], [threshold, ...points.map((point) => point.threshold)]);
}

function headline(answer, model, label) {
  const called = answer[`${label}_positive`];
  const digits = digitsOf(answer, model.labels[label], label);
  const values = {
    label: labelInText(label),
    probability: percent(answer[label], digits),
    threshold: percent(model.labels[label].threshold, digits),
    low: percent(answer[`${label}_low`]),
    high: percent(answer[`${label}_high`]),
    folds: model.model.folds,
  };
  return element(
    "section",
    { class: called ? "card headline called" : "card headline" },
    element("p", { class: "quiet small" }, text("probabilityOf", values)),
    element("p", { class: "big" }, values.probability),
    element("p", { class: "verdict" }, element("span", { class: "mark", "aria-hidden": "true" }, called ? "▲" : "▽"),
      text(called ? "called" : "notCalled", values)),
    element("p", { class: "quiet" }, text(called ? "calledText" : "notCalledText", values), " ", text("spread", values)),
    prevalence(model, label),
  );
}

// For which patients the probability is one: the same sentence as in the report.
function prevalence(model, label) {
  const [point] = model.labels[label].operating_points;
  if (!point) return null;
  const share = percent(point.positives / (point.positives + point.negatives));
  return element("p", { class: "quiet small" }, text("prevalence", { label: labelInText(label), share }));
}

function scaleBox(answer, model, label, width) {
  return element(
    "figure",
    { class: "scale-box" },
    drawScale(width, label, answer, model.labels[label]),
    element("figcaption", { class: "quiet small" }, text("scaleCaption", { label: labelInText(label) })),
  );
}

function pointsTable(answer, model, label) {
  const rules = model.labels[label];
  const points = [...rules.operating_points].sort((one, other) => one.threshold - other.threshold);
  if (!points.length) return null;
  const { positives, negatives } = points[0];
  const digits = digitsOf(answer, rules, label);
  const rows = points.map((point) => {
    const above = answer[label] >= point.threshold;
    const isCall = point.rule === "youden";
    return element(
      "tr",
      { class: isCall ? "is-call" : null },
      element("th", { scope: "row" }, percent(point.threshold, digits), isCall ? element("span", { class: "tag" }, text("pointCall")) : null),
      element("td", {}, percent(point.sensitivity, 0)),
      element("td", {}, percent(point.specificity, 0)),
      element("td", { class: above ? "above" : "" }, above ? `▲ ${text("above")}` : `▽ ${text("below")}`),
    );
  });
  const caption = text("pointsCaption", { label: labelInText(label), positives, negatives });
  return element(
    "table",
    { class: "points" },
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...list("pointsHead").map((each) => element("th", { scope: "col" }, each)))),
    element("tbody", {}, ...rows),
  );
}

function others(answer, model) {
  const labels = Object.keys(model.labels).filter((label) => label !== model.headline);
  if (!labels.length) return null;
  labels.sort((one, other) => answer[other] - answer[one]);
  const rows = labels.map((label) => otherLabel(answer, model.labels[label], label));
  return element(
    "section",
    { class: "card others" },
    element("h3", {}, text("others")),
    element("p", { class: "quiet small" }, text("othersHint")),
    element("ul", {}, ...rows),
  );
}

function otherLabel(answer, rules, label) {
  const called = answer[`${label}_positive`];
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  const [fill, mark] = [element("span", { class: "fill" }), element("span", { class: "threshold" })];
  fill.style.width = `${100 * answer[label]}%`;
  mark.style.left = `${100 * rules.threshold}%`;
  bar.append(fill, mark);
  const verdict = called ? `▲ ${text("above")}` : `▽ ${text("below")}`;
  return element(
    "li",
    { class: called ? "other called" : "other" },
    element("span", { class: "other-name" }, labelName(label)),
    bar,
    element("span", { class: "other-value" }, percent(answer[label])),
    element("span", { class: "other-verdict small" }, verdict),
  );
}

function neighbours(answer, url) {
  if (!answer.neighbours?.length) return null;
  const cases = answer.neighbours.map((each) =>
    element(
      "li",
      {},
      element("img", { alt: "", "data-picture": each.picture, src: knownPicture(each.picture), width: 120, height: 120 }),
      element("strong", {}, each.diagnosis.replaceAll(/\b[A-Z]{2,5}\b/g, labelName) || "–"),
      element("span", { class: "quiet small" }, text("similarity", { value: number(each.similarity) })),
      element("span", { class: "quiet small" }, [each.image_id, each.source, each.licence].filter(Boolean).join(" · ")),
    ),
  );
  return element(
    "section",
    { class: "card neighbours" },
    element("h3", {}, text("neighbours")),
    element("p", { class: "quiet small" }, text("neighboursHint")),
    element("ul", {}, ...(url ? [yours(url)] : []), ...cases),
  );
}

function yours(url) {
  const picture = element("img", { src: url, alt: "", width: 120, height: 120, onerror: () => picture.removeAttribute("src") });
  return element("li", { class: "yours" }, picture, element("strong", {}, text("yours")));
}
