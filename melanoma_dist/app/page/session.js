// The images of this tab: added, sent a few at a time, removed, and brought back by undo.
import { predict } from "./server.js";
import { text } from "./text.js";

const AT_ONCE = 4;
const SHOWN = /^image\/(jpeg|png|webp|gif|bmp)$/; // what every browser can show; of others the server sends a JPEG

export class Session {
  constructor(changed) {
    this.items = [];
    this.selected = null;
    this.changed = changed;
    this.removals = [];
    this.sending = 0;
  }

  add(files) {
    const added = [...files].map((file) => ({
      id: crypto.randomUUID?.() ?? String(Math.random()),
      file,
      name: file.name || text("unnamed"),
      url: SHOWN.test(file.type) ? URL.createObjectURL(file) : null,
      state: "waiting",
      evidence: {},
      about: {},
    }));
    this.items.push(...added);
    if (added.length) this.selected = added[0];
    this.changed();
    this.send();
  }

  send() {
    while (this.sending < AT_ONCE) {
      const item = this.items.find((each) => each.state === "waiting");
      if (!item) return;
      item.state = "sent";
      this.sending += 1;
      this.ask(item).finally(() => {
        this.sending -= 1;
        this.changed();
        this.send();
      });
    }
  }

  async ask(item) {
    const { about } = item;
    try {
      const answer = await predict(item.file, !item.url, about);
      if (item.about !== about) return; // something else is known by now, and asked again
      item.answer = answer;
      item.url ??= item.answer.preview;
      item.state = "done";
    } catch (error) {
      if (item.about !== about) return;
      item.state = "failed";
      item.problem = error;
    }
  }

  retry(items) {
    for (const item of items) Object.assign(item, { state: "waiting", problem: null });
    this.changed();
    this.send();
  }

  // Predict an image again, with what is known of its patient now.
  tell(item, about) {
    Object.assign(item, { about, answer: null, evidence: {} });
    this.retry([item]);
  }

  select(item) {
    this.selected = item;
    this.changed();
  }

  step(by) {
    const at = this.items.indexOf(this.selected) + by;
    if (at >= 0 && at < this.items.length) this.select(this.items[at]);
  }

  remove(items) {
    this.removals.push({ before: [...this.items], selected: this.selected, count: items.length });
    const at = this.items.indexOf(this.selected);
    this.items = this.items.filter((each) => !items.includes(each));
    if (items.includes(this.selected)) this.selected = this.items[Math.min(at, this.items.length - 1)] ?? null;
    this.changed();
  }

  undo() {
    const last = this.removals.pop();
    if (!last) return false;
    const later = this.items.filter((each) => !last.before.includes(each));
    this.items = [...last.before, ...later];
    this.selected = last.selected;
    this.changed();
    this.send();
    return true;
  }

  get failed() {
    return this.items.filter((each) => each.state === "failed");
  }

  // Those that may have an answer the next time.
  get retriable() {
    return this.failed.filter((each) => !each.problem.final);
  }

  get answered() {
    return this.items.filter((each) => each.state === "done").length;
  }
}
