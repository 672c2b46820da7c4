// What the reader says of the patient of an image: the fields that the model takes, all of them optional.
import { element, list, text } from "./text.js";

const changed = (item, field, value, tell) => {
  const about = { ...item.about };
  if (value) about[field] = value;
  else delete about[field];
  tell(item, about);
};

function ageField(item, { low, high }, tell) {
  const input = element("input", {
    id: "about-age", type: "number", min: low, max: high, step: 1, inputmode: "numeric",
    placeholder: text("unknown"), value: item.about.age ?? "",
    onchange: () => input.reportValidity() && changed(item, "age", input.value, tell),
  });
  return input;
}

function wordField(item, field, { words }, tell) {
  const names = list("words");
  const options = ["", ...words].map((word) => element(
    "option",
    { value: word, selected: (item.about[field] ?? "") === word ? "" : null },
    word ? names[word] ?? word : text("unknown"),
  ));
  const select = element("select", { id: `about-${field}`, onchange: () => changed(item, field, select.value, tell) }, ...options);
  return select;
}

// The fields for an image. `tell(item, about)` predicts it again with what is known now.
export function patientFields(item, model, tell) {
  const fields = Object.entries(model.metadata).map(([field, rule]) => {
    const input = field === "age" ? ageField(item, rule, tell) : wordField(item, field, rule, tell);
    return element("label", {}, element("span", {}, list("fields")[field]), " ", input);
  });
  return element(
    "section",
    { class: "card", "aria-label": text("patient") },
    element("h3", { class: "small-head" }, text("patient")),
    element("div", { class: "row" }, ...fields),
    element("p", { class: "quiet small" }, item.answer?.metadata ? text("told", item.answer) : text("patientHint")),
  );
}
