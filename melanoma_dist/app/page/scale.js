// The scale from 0 to 100 %: the mean, the spread of the folds, and the operating points below it.
import { labelName, percent, svg, text } from "./text.js";

const HEIGHT = 128;
const LINE = 52; // y of the axis
const MARGIN = 16;
const CAPTION_WIDTH = 22; // pixels beside a caption of the axis that nothing may cross
const LABEL_WIDTH = 46; // pixels that a label of an operating point needs

export function drawScale(width, label, answer, rules) {
  const x = (value) => MARGIN + value * (width - 2 * MARGIN);
  const probability = answer[label];
  const low = answer[`${label}_low`];
  const high = answer[`${label}_high`];
  const values = {
    label: labelName(label),
    probability: percent(probability),
    low: percent(low),
    high: percent(high),
    threshold: percent(rules.threshold),
  };
  const picture = svg("svg", { class: "scale", viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img" });
  picture.setAttribute("aria-label", text("scaleText", values));
  picture.append(axis(x, probability), zone(x, rules.threshold), spread(x, low, high), ...folds(x, answer.folds[label] ?? []));
  picture.append(mean(x, probability, width), ...points(x, width, rules));
  return picture;
}

function axis(x, probability) {
  const group = svg("g", { class: "axis" });
  group.append(svg("line", { x1: x(0), x2: x(1), y1: LINE, y2: LINE }));
  for (const at of [0, 0.25, 0.5, 0.75, 1]) {
    group.append(svg("line", { x1: x(at), x2: x(at), y1: LINE - 4, y2: LINE }));
    if (Math.abs(x(at) - x(probability)) < CAPTION_WIDTH) continue; // the stem of the mean would cross it out
    const caption = svg("text", { x: x(at), y: LINE - 24, "text-anchor": at === 0 ? "start" : at === 1 ? "end" : "middle" });
    caption.append(percent(at, 0));
    group.append(caption);
  }
  return group;
}

// Where the model calls the label: from the threshold to 100 %.
function zone(x, threshold) {
  return svg("rect", { class: "zone", x: x(threshold), y: LINE - 9, width: x(1) - x(threshold), height: 18, rx: 3 });
}

function spread(x, low, high) {
  return svg("rect", { class: "spread", x: x(low) - 4, y: LINE - 6, width: x(high) - x(low) + 8, height: 12, rx: 6 });
}

const folds = (x, values) => values.map((value) => svg("circle", { class: "fold", cx: x(value), cy: LINE, r: 3 }));

function mean(x, probability, width) {
  const group = svg("g", { class: "mean" });
  group.append(svg("line", { x1: x(probability), x2: x(probability), y1: LINE - 18, y2: LINE + 10 }));
  const caption = svg("text", { x: Math.min(Math.max(x(probability), 26), width - 26), y: 12, "text-anchor": "middle" });
  caption.append(percent(probability));
  group.append(caption, svg("line", { class: "stem", x1: x(probability), x2: x(probability), y1: 17, y2: LINE - 18 }));
  return group;
}

function points(x, width, rules) {
  const shown = rules.operating_points.filter((point) => point.rule === "sensitivity" || point.rule === "youden");
  if (!shown.some((point) => point.rule === "youden"))
    shown.push({ rule: "youden", threshold: rules.threshold });
  shown.sort((one, other) => one.threshold - other.threshold);
  const places = apart(shown.map((point) => x(point.threshold)), MARGIN + LABEL_WIDTH / 2 - 8, width - MARGIN - LABEL_WIDTH / 2);
  return shown.map((point, at) => {
    const isCall = point.rule === "youden";
    const group = svg("g", { class: isCall ? "point call" : "point" });
    const start = x(point.threshold);
    group.append(svg("path", { d: `M${start} ${LINE - 9}V${LINE + 16}L${places[at]} ${LINE + 36}V${LINE + 42}` }));
    const caption = svg("text", { x: places[at], y: LINE + 57, "text-anchor": "middle" });
    caption.append(isCall ? text("scaleCall") : percent(point.value, 0));
    group.append(caption);
    return group;
  });
}

// Moves labels apart so that none overlap, as little as possible, within the borders.
function apart(wanted, least, most) {
  const places = [...wanted];
  for (let at = 0; at < places.length; at++)
    places[at] = Math.max(places[at], at ? places[at - 1] + LABEL_WIDTH : least);
  for (let at = places.length - 1; at >= 0; at--)
    places[at] = Math.min(places[at], at < places.length - 1 ? places[at + 1] - LABEL_WIDTH : most);
  return places;
}
