// The images of the session: how many, as a list to choose from, and their answers as a table.
import { doubtsOf, element, errorOf, labelName, list, percent, plural, refusalOf, text } from "./text.js";

const byId = (id) => document.getElementById(id);
let revealed = null; // the image that was brought into view last

export function showCounts({ items, answered, failed, retriable }) {
  byId("count").textContent = plural("count", items.length);
  const parts = [text("sending", { done: answered, count: items.length }), failed.length && plural("unanswered", failed.length)];
  byId("status").textContent = items.length ? parts.filter(Boolean).join("; ") : "";
  byId("retry").hidden = retriable.length < 2; // a single one has a button of its own
  byId("retry").textContent = plural("retryAll", retriable.length);
}

export function showList(session, model) {
  const thumbs = byId("thumbs");
  const focused = thumbs.contains(document.activeElement);
  thumbs.replaceChildren(...session.items.map((item) => {
    const picture = item.url ? element("img", { src: item.url, alt: "", onerror: blank }) : element("span", { class: "blank" });
    const current = item === session.selected;
    return element("li", {}, element(
      "button",
      { class: "thumb", "aria-current": current ? "true" : null, tabindex: current ? 0 : -1, onclick: () => session.select(item) },
      picture,
      element("span", { class: "thumb-text" }, element("span", { class: "thumb-name" }, item.name), badge(item, model)),
    ));
  }));
  const current = thumbs.querySelector("[aria-current]");
  if (focused) current?.focus();
  if (current && revealed !== session.selected.id) reveal(current, thumbs);
  revealed = session.selected?.id;
}

// Scrolls the list alone: the reader's place in the page stays.
function reveal(current, thumbs) {
  for (const box of [thumbs, thumbs.closest(".side")]) {
    const [inner, outer] = [current, box].map((each) => each.getBoundingClientRect());
    const bottom = Math.min(outer.bottom, innerHeight);
    box.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - bottom);
    box.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
  }
}

const blank = (event) => event.target.replaceWith(element("span", { class: "blank" }));

function badge(item, model) {
  if (item.state === "failed" || item.answer?.error) return element("span", { class: "badge bad" }, text("failed"));
  if (!item.answer) return element("span", { class: "badge busy" }, text("busy"));
  const label = model.headline;
  const called = item.answer[`${label}_positive`];
  const doubts = doubtsOf(item.answer).length;
  return element(
    "span",
    { class: called ? "badge called" : "badge" },
    element("span", { "aria-hidden": "true" }, called ? "▲ " : "▽ "),
    percent(item.answer[label]),
    element("span", { class: "unseen" }, ` ${text(called ? "above" : "below")}`),
    doubts ? ` · ${plural("doubtCount", doubts)}` : null,
  );
}

// ``open`` shows an image whose name is pressed. Roles are written out: on a phone rows are laid out as blocks.
export function showTable(session, model, open) {
  const head = list("tableHead").map((each) => element("th", { scope: "col", role: "columnheader" }, each));
  byId("table").replaceChildren(
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)),
    element("tbody", { role: "rowgroup" }, ...session.items.map((item) => tableRow(item, model, open))),
  );
}

function tableRow(item, model, open) {
  const name = element("button", { class: "link", onclick: () => open(item) }, item.name);
  const first = element("th", { scope: "row", role: "rowheader" }, name);
  const { answer } = item;
  if (!answer || answer.error) {
    const reason = answer ? errorOf(answer) : item.problem ? refusalOf(item.problem) : text("busy");
    return element("tr", { role: "row" }, first, element("td", { role: "cell", colspan: 4, class: "quiet" }, reason));
  }
  const label = model.headline;
  const called = Object.keys(model.labels).filter((each) => answer[`${each}_positive`]);
  const contents = [
    percent(answer[label]),
    `${percent(answer[`${label}_low`])} – ${percent(answer[`${label}_high`])}`,
    called.map(labelName).join(", ") || text("none"),
    doubtsOf(answer).join(" ") || text("none"),
  ];
  const cells = contents.map((each, at) => element("td", { role: "cell", "data-head": list("tableHead")[at + 1] }, each));
  return element("tr", { role: "row", class: answer[`${label}_positive`] ? "called" : null }, first, ...cells);
}
