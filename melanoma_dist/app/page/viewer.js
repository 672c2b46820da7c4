// The picture: zoom, movement, and over it the outline of the lesion and the map of evidence.
import { percent, svg } from "./text.js";

const MOST = 8;
const STEP = 1.4;
const FINE = 160; // pixels of the map's longer side: it is interpolated before it is coloured
const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis

export class Viewer {
  constructor() {
    this.box = document.getElementById("viewer");
    this.stage = document.getElementById("stage");
    this.picture = document.getElementById("picture");
    this.overlay = document.getElementById("overlay");
    this.outline = document.getElementById("outline");
    this.level = document.getElementById("zoom-level");
    this.scale = 1;
    this.left = this.top = 0;
    this.connect();
    this.reset();
  }

  connect() {
    document.getElementById("zoom-in").addEventListener("click", () => this.zoom(STEP));
    document.getElementById("zoom-out").addEventListener("click", () => this.zoom(1 / STEP));
    document.getElementById("zoom-fit").addEventListener("click", () => this.reset());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.picture.addEventListener("load", () => this.fit());
    addEventListener("resize", () => this.fit());
    this.stage.addEventListener("dblclick", () => (this.scale > 1 ? this.reset() : this.zoom(3)));
  }

  // The picture as large as the box and the window allow, and the map exactly over it.
  fit() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    if (!width) return;
    const scale = Math.min(this.box.clientWidth / width, (innerHeight * 0.62) / height);
    for (const each of [this.picture, this.overlay, this.outline]) {
      each.style.width = `${Math.round(width * scale)}px`;
      each.style.height = `${Math.round(height * scale)}px`;
    }
  }

  key(event) {
    if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (event.key === "+" || event.key === "=") this.zoom(STEP);
    else if (event.key === "-") this.zoom(1 / STEP);
    else if (event.key === "0") this.reset();
    else if (moves[event.key] && this.scale > 1) this.move(...moves[event.key]);
    else return;
    event.preventDefault();
  }

  wheel(event) {
    if (!event.ctrlKey && this.scale === 1) return; // the page scrolls until the reader has zoomed
    event.preventDefault();
    this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
  }

  drag(event) {
    if (this.scale === 1) return;
    this.stage.setPointerCapture(event.pointerId);
    const follow = (moved) => this.move(moved.movementX, moved.movementY);
    this.stage.addEventListener("pointermove", follow);
    this.stage.addEventListener("pointerup", () => this.stage.removeEventListener("pointermove", follow), { once: true });
  }

  zoom(factor) {
    const before = this.scale;
    this.scale = Math.min(MOST, Math.max(1, this.scale * factor));
    this.left *= this.scale / before;
    this.top *= this.scale / before;
    this.move(0, 0);
  }

  move(x, y) {
    const reach = (this.scale - 1) / 2;
    const bound = (value, size) => Math.min(reach * size, Math.max(-reach * size, value));
    this.left = bound(this.left + x, this.stage.offsetWidth);
    this.top = bound(this.top + y, this.stage.offsetHeight);
    this.stage.style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale})`;
    this.stage.classList.toggle("near", this.scale > 1);
    this.level.textContent = percent(this.scale, 0);
  }

  reset() {
    this.scale = 1;
    this.left = this.top = 0;
    this.move(0, 0);
  }

  show(url, alt) {
    this.reset();
    this.hideEvidence();
    this.showLesion(null);
    document.getElementById("no-picture").hidden = Boolean(url);
    this.picture.hidden = !url;
    if (url) this.picture.src = url;
    else this.picture.removeAttribute("src");
    this.picture.alt = alt;
  }

  showLesion(lesion) {
    this.outline.replaceChildren(...(lesion ? lesionShapes(lesion) : []));
  }

  showEvidence(grid, window, strength) {
    drawEvidence(this.overlay, grid, window);
    this.overlay.style.opacity = strength;
  }

  hideEvidence() {
    this.overlay.style.opacity = 0;
  }
}

// The outline of a lesion, and the window that the models see where that is not the whole picture, as shares of it.
export function lesionShapes({ outline, region, window: { left, top, width, height } }) {
  const shapes = [];
  if (outline.length) shapes.push(svg("polygon", { class: "lesion", points: outline.map(String).join(" ") }));
  if (region === "lesion") shapes.push(svg("rect", { class: "window", x: left, y: top, width, height }));
  return shapes;
}

// Draws a grid of numbers of 0 to 1 over the window that it covers: interpolated, coloured, and transparent elsewhere.
export function drawEvidence(canvas, grid, { top, left, height, width }) {
  const rows = grid.length;
  const columns = grid[0].length;
  canvas.width = canvas.height = FINE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(FINE, FINE);
  for (let y = 0; y < FINE; y++)
    for (let x = 0; x < FINE; x++) {
      const [down, across] = [((y + 0.5) / FINE - top) / height, ((x + 0.5) / FINE - left) / width];
      if (down < 0 || down > 1 || across < 0 || across > 1) continue;
      const value = between(grid, down * rows - 0.5, across * columns - 0.5);
      pixels.data.set([...colour(value), 255 * Math.min(1, value * 1.4)], 4 * (y * FINE + x));
    }
  context.putImageData(pixels, 0, 0);
}

function between(grid, y, x) {
  const clamp = (value, count) => Math.min(count - 1, Math.max(0, value));
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const at = (row, column) => grid[clamp(row, grid.length)][clamp(column, grid[0].length)];
  const upper = at(top, left) * (1 - x + left) + at(top, left + 1) * (x - left);
  const lower = at(top + 1, left) * (1 - x + left) + at(top + 1, left + 1) * (x - left);
  return upper * (1 - y + top) + lower * (y - top);
}

function colour(value) {
  const place = Math.min(0.9999, Math.max(0, value)) * (COLOURS.length - 1);
  const [from, to] = [COLOURS[Math.floor(place)], COLOURS[Math.floor(place) + 1]];
  return from.map((channel, at) => channel + (to[at] - channel) * (place % 1));
}
