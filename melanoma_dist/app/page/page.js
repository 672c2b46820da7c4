// The page: connects the session, the picture and the results to what the reader does.
import { csv, download, foot, layOutPaper } from "./export.js";
import { showCounts, showList, showTable } from "./overview.js";
import { patientFields } from "./patient.js";
import { failure, showResult } from "./result.js";
import { explain, getExamples, getModel, getPicture, hasToken, pictureUrl, setToken, takeToken } from "./server.js";
import { Session } from "./session.js";
import {
  element, fillPage, labelInText, labelName, lesionNote, list, loadLanguage, noteOf, number, plural, refusalOf, text,
} from "./text.js";
import { Viewer } from "./viewer.js";

const byId = (id) => document.getElementById(id);
const session = new Session(render);
let viewer;
let model;
let laidOut = innerWidth; // pixels of the window for which the detail was drawn
let shown = null; // the item and its state that the detail shows now

async function start() {
  takeToken();
  await loadLanguage();
  fillPage();
  viewer = new Viewer();
  connect();
  await open();
}

async function open() {
  try {
    model = await getModel();
  } catch (error) {
    byId("token-form").hidden = error.status !== 401;
    byId("token-wrong").hidden = !hasToken();
    byId("welcome").hidden = true;
    if (error.status !== 401) byId("main").prepend(failure(refusalOf(error), () => location.reload(), text("cannotStart")));
    return;
  }
  byId("token-form").hidden = true;
  byId("drop").hidden = false;
  describeModel();
  await offerExamples();
  render();
}

function describeModel() {
  const { backbone, folds, run, synthetic } = model.model;
  const auc = model.labels[model.headline].auc;
  const parts = [text("model", { backbone, folds, run })];
  if (auc?.estimate != null) {
    const [estimate, low, high] = [auc.estimate, auc.low, auc.high].map((each) => number(each));
    parts.push(text("modelAuc", { label: labelInText(model.headline), auc: estimate, low, high }));
  }
  byId("model").textContent = parts.join(" · ");
  byId("question").textContent = text("welcome", { label: labelInText(model.headline) });
  byId("synthetic").hidden = !synthetic;
  const { formats, max_files: files, max_megabytes: megabytes } = model.limits;
  byId("limits").textContent = text("limits", { formats, files, megabytes });
  const api = element("a", { href: "/docs" }, text("apiLink"));
  byId("foot").replaceChildren(foot(model), " · ", api);
  for (const label of Object.keys(model.labels))
    byId("evidence-label").append(element("option", { value: label }, labelName(label)));
  byId("evidence-label").value = model.headline;
}

async function offerExamples() {
  const examples = await getExamples();
  byId("examples").hidden = !examples.length;
  byId("example-list").replaceChildren(...examples.map(({ name, kind }) => {
    const add = async () => {
      try {
        const blob = await getPicture(`/v1/examples/${encodeURIComponent(name)}`);
        session.add([new File([blob], `${name}.jpg`, { type: "image/jpeg" })]);
      } catch (error) {
        toast(refusalOf(error));
      }
    };
    return element("button", { onclick: add }, exampleName(kind) ?? name);
  }));
}

function exampleName(kind) {
  if (kind === "positive") return labelName(model.headline);
  const nevus = kind === "negative" && "NV" in model.labels && model.headline !== "NV";
  return list("exampleKinds")[nevus ? "nevus" : kind];
}

function connect() {
  const drop = byId("drop");
  byId("files").addEventListener("change", (event) => {
    session.add(event.target.files);
    event.target.value = "";
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (model) session.add(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (model && files.length) session.add(files);
  });
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !event.target.matches("input[type=password]")) undo();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && (byId("keys").open = false));
  addEventListener("click", (event) => byId("keys").contains(event.target) || (byId("keys").open = false));
  addEventListener("beforeprint", () => model && layOutPaper(session.items, model));
  addEventListener("resize", () => {
    if (innerWidth === laidOut) return; // a phone hides its address bar: nothing to lay out and read out again
    laidOut = innerWidth;
    if (session.selected) showDetail(true);
  });
  byId("previous").addEventListener("click", () => session.step(-1));
  byId("next").addEventListener("click", () => session.step(1));
  byId("retry").addEventListener("click", () => {
    session.retry(session.retriable);
    byId("thumbs").querySelector("[aria-current]")?.focus(); // the button is gone
  });
  byId("remove").addEventListener("click", () => remove([session.selected]));
  byId("clear").addEventListener("click", () => remove(session.items));
  byId("print").addEventListener("click", () => print());
  byId("export").addEventListener("click", () => {
    download("melanoma-dist.csv", csv(session.items));
    toast(text("exported"));
  });
  byId("thumbs").addEventListener("keydown", thumbKey);
  byId("viewer").addEventListener("keydown", (event) => {
    if (event.target !== byId("viewer") || event.ctrlKey) return;
    const key = event.key.toLowerCase();
    if (key === "e") toggleEvidence();
    if (key === "l") byId("show-lesion").click();
  });
  byId("strength").addEventListener("input", showEvidence);
  byId("show-lesion").addEventListener("change", showLesion);
  byId("evidence-label").addEventListener("change", () => {
    if (byId("strength").value === "0") byId("strength").value = 60;
    showEvidence();
  });
  byId("picture").addEventListener("error", () => {
    byId("picture").hidden = true;
    byId("no-picture").hidden = false;
  });
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(byId("token").value);
    open();
  });
}

function thumbKey(event) {
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  if (steps[event.key]) session.step(steps[event.key]);
  else if (event.key === "Delete" || event.key === "Backspace") remove([session.selected]);
  else return;
  event.preventDefault();
  byId("thumbs").querySelector("[aria-current]")?.focus();
}

function remove(items) {
  if (!items.length || !items[0]) return;
  const message = items.length === 1 ? text("removed", { name: items[0].name }) : plural("cleared", items.length);
  session.remove([...items]);
  toast(message, true);
  if (!session.items.length) byId("main").focus({ preventScroll: true }); // the button that had the focus is gone
}

function undo() {
  const focused = byId("toast").contains(document.activeElement);
  if (!session.undo()) return;
  toast(text("undone"));
  if (focused) byId("thumbs").querySelector("[aria-current]")?.focus();
}

function toast(message, undoable = false) {
  const button = undoable && element("button", { onclick: undo }, text("undo"));
  byId("toast").replaceChildren(message, ...(button ? [button] : []));
  clearTimeout(toast.timer);
  if (!undoable) toast.timer = setTimeout(() => byId("toast").replaceChildren(), 6000);
}

function render() {
  if (!model) return;
  const count = session.items.length;
  byId("welcome").hidden = count > 0;
  byId("session").hidden = byId("table-card").hidden = count === 0;
  byId("detail").hidden = !session.selected;
  showCounts(session);
  showList(session, model);
  showTable(session, model, openDetail);
  showDetail(false);
}

function openDetail(item) {
  session.select(item);
  byId("main").focus({ preventScroll: true });
  byId("detail").scrollIntoView();
}

function showDetail(force) {
  const item = session.selected;
  if (!item) {
    shown = null;
    return;
  }
  const at = session.items.indexOf(item);
  byId("position").textContent = text("position", { at: at + 1, count: session.items.length });
  byId("name").textContent = item.name;
  disable("previous", at === 0, "next");
  disable("next", at === session.items.length - 1, "previous");
  const state = `${item.id} ${item.state}`;
  if (state === shown && !force) return;
  if (!shown?.startsWith(item.id) || !byId("picture").src) viewer.show(item.url, text("pictureAlt", item));
  shown = state;
  byId("evidence").hidden = !item.answer || Boolean(item.answer.error);
  const asks = Object.keys(model.metadata).length > 0;
  const focused = byId("patient").contains(document.activeElement) ? document.activeElement.id : "";
  byId("patient").replaceChildren(...(asks ? [patientFields(item, model, (...told) => session.tell(...told))] : []));
  byId(focused)?.focus();
  byId("result").replaceChildren(result(item));
  const cases = matchMedia("(min-width: 67.5em)").matches ? byId("result").querySelector(".neighbours") : null;
  byId("beside").replaceChildren(...(cases ? [cases] : []));
  fetchPictures();
  showLesion();
  showEvidence();
}

// A button that is disabled loses the focus: the other one takes it, and the reader stays in place.
function disable(id, off, other) {
  const focused = off && document.activeElement === byId(id);
  byId(id).disabled = off;
  if (!focused) return;
  byId(other).disabled = false;
  byId(other).focus();
}

function showLesion() {
  const lesion = session.selected?.answer?.lesion;
  byId("lesion").hidden = !lesion;
  if (!lesion) return viewer.showLesion(null);
  viewer.showLesion(byId("show-lesion").checked ? lesion : null);
  byId("lesion-note").textContent = lesionNote(lesion);
}

function result(item) {
  if (item.state === "failed") {
    const detail = refusalOf(item.problem);
    const retry = item.problem.final ? null : () => session.retry([item]);
    return failure(item.problem.status ? text("problem", { detail }) : detail, retry);
  }
  if (!item.answer) return element("p", { class: "card busy" }, text("waiting"));
  return showResult(item.answer, model, Math.max(280, byId("result").clientWidth - 42), item.url);
}

async function fetchPictures() {
  for (const picture of byId("detail").querySelectorAll("img[data-picture]"))
    picture.src = await pictureUrl(picture.dataset.picture);
}

function toggleEvidence() {
  byId("strength").value = byId("strength").value === "0" ? 60 : 0;
  showEvidence();
}

async function showEvidence() {
  const item = session.selected;
  const strength = Number(byId("strength").value) / 100;
  const label = byId("evidence-label").value;
  if (!item?.answer || item.answer.error || strength === 0) {
    viewer.hideEvidence();
    byId("evidence-note").textContent = text("evidenceHint");
    byId("evidence-note").classList.remove("doubtful");
    return;
  }
  if (!item.evidence[label]) {
    byId("evidence-note").textContent = text("evidenceBusy");
    item.evidence[label] = explain(item.file, label, item.about).then(
      (map) => ({ ...map, note: noteOf(map) }),
      (error) => ({ grid: null, note: refusalOf(error), failed: true }),
    );
  }
  const { evidence } = item;
  const map = await evidence[label];
  evidence[label] = map.failed ? null : map; // after a failure the next move of the slider asks again
  if (item !== session.selected || label !== byId("evidence-label").value || byId("strength").value === "0") return;
  byId("evidence-note").textContent = map.note;
  byId("evidence-note").classList.toggle("doubtful", map.trust != null && map.trust < 0.75);
  if (map.grid) viewer.showEvidence(map.grid, map.window, Number(byId("strength").value) / 100);
  else viewer.hideEvidence();
}

start();
