// The CT viewer in the browser. Slices come packed from the kernel and stay here, so that stepping
// and windowing need no round trip. Nothing is fetched from any address.

const KEPT_BYTES = 140e6;
const AHEAD = 6; // slices in a request
const MOST_ASKED = 12; // slices under way
const PATIENCE_MS = 3000; // until a slice is asked for again
const SAID_AFTER_MS = 120; // a slice that comes sooner is not announced
const NOTCH_PX = 50; // one event of a wheel turns at least this far, a trackpad's many turn less
const PX_A_SLICE = 60; // of a trackpad
const FINGER_PX_A_SLICE = 12;
const GONE = ["dead", "terminating", "restarting", "autorestarting"];
const DASHES = [[], [5, 3], [2, 2], [8, 3, 2, 3]]; // of the readers' lines, as in figures
const PLANES = ["axial", "coronal", "sagittal"];
const FOLLOWED = ["cursor", "plane", "window", "visible", "layout_mode", "outline", "opacity",
  "message"];

async function unpack(data, rows, columns) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const n = rows * columns;
  const hu = new Int16Array(bytes, 0, n);
  for (let y = 0; y < rows; y++) {
    for (let i = y * columns + 1; i < (y + 1) * columns; i++) hu[i] += hu[i - 1];
  }
  const labels = bytes.byteLength > 2 * n ? new Uint8Array(bytes, 2 * n, n) : null;
  return { hu, labels, rows, columns };
}

// Keeps slices of all planes, asks for those nearest to what is shown, and lets go of the farthest.
// Few requests are under way at once, so that a kernel that was busy answers what is wanted by then.
class Store {
  constructor(model, onSlice) {
    this.model = model;
    this.onSlice = onSlice;
    this.slices = new Map();
    this.asked = new Map(); // slice -> when it was asked for, ms
    this.bytes = 0;
    this.cursor = [0, 0, 0];
    this.wanted = ["axial", 0];
    this.patience = PATIENCE_MS;
    this.lost = false; // the kernel's side was cut off
    this.turn = Promise.resolve();
    this.listener = (content, buffers) => {
      if (content.kind !== "slices") return;
      this.lost = false;
      this.patience = PATIENCE_MS;
      this.inTurn(() => this.take(content.slices, buffers));
    };
    this.cut = () => { this.lost = true; this.onSlice(); };
    model.on("msg:custom", this.listener);
    model.on("comm_live_update", this.cut);
    this.clock = setInterval(() => this.again(), 500);
  }
  close() {
    clearInterval(this.clock);
    this.model.off("msg:custom", this.listener);
    this.model.off("comm_live_update", this.cut);
    this.slices.clear();
  }
  // Unpacking takes a while: what comes later must not be overtaken.
  inTurn(work) {
    this.turn = this.turn.then(work);
    return this.turn;
  }
  send(content) { // whether it could be sent
    try {
      this.model.send(content);
      return true;
    } catch {
      this.lost = true;
      return false;
    }
  }
  get(plane, index) { return this.slices.get(plane + index); }
  get kernel() { // as the page's widget manager knows it; "unknown" where it tells nothing
    const kernel = this.model.widget_manager?.kernel;
    if (kernel === undefined) return "unknown";
    return kernel === null || kernel.isDisposed ? "dead" : kernel.status;
  }
  get why() { // why a slice does not come, in words
    if (this.lost || GONE.includes(this.kernel)) {
      return "the kernel that held it is gone: run this cell again";
    }
    return this.kernel === "busy" ? "the kernel is busy" : "asked for";
  }
  async take(slices, buffers) {
    await Promise.all(slices.map(async (s, k) => {
      const key = s.plane + s.index;
      // A page that is its own kernel has it unpacked.
      const slice = s.hu ? s : await unpack(buffers[k], s.rows, s.columns);
      this.asked.delete(key);
      if (!this.slices.has(key)) this.bytes += 3 * s.rows * s.columns;
      this.slices.set(key, Object.assign(slice, { plane: s.plane, index: s.index }));
    }));
    this.letGo();
    this.onSlice();
    this.fetch();
  }
  letGo() {
    if (this.bytes <= KEPT_BYTES) return;
    const [plane, index] = this.wanted;
    const far = (s) => (s.plane === plane ? Math.abs(s.index - index) : 1e6 + s.index);
    const order = [...this.slices.entries()].sort((a, b) => far(b[1]) - far(a[1]));
    for (const [key, s] of order) {
      if (this.bytes <= 0.9 * KEPT_BYTES) break;
      this.bytes -= 3 * s.rows * s.columns;
      this.slices.delete(key);
    }
  }
  ask(plane, indices) {
    const missing = indices.filter((i) => !this.slices.has(plane + i) && !this.asked.has(plane + i));
    if (!missing.length) return;
    const now = performance.now();
    missing.forEach((i) => this.asked.set(plane + i, now));
    this.send({ kind: "slices", plane, indices: missing });
  }
  show(cursor, plane) {
    this.cursor = cursor;
    this.wanted = [plane, cursor[PLANES.indexOf(plane)]];
    this.fetch();
  }
  // What is shown first; once that is here, outwards from it, one request at a time.
  fetch() {
    const [plane] = this.wanted;
    for (const name of [plane, ...PLANES.filter((other) => other !== plane)]) {
      if (this.asked.size < MOST_ASKED) this.ask(name, [this.cursor[PLANES.indexOf(name)]]);
    }
    if (!this.asked.size && this.bytes <= 0.85 * KEPT_BYTES) this.ahead();
  }
  ahead() {
    const shape = this.model.get("info").shape;
    const [plane, index] = this.wanted;
    const n = shape[PLANES.indexOf(plane)];
    const next = [];
    for (let d = 1; d < n && next.length < AHEAD; d++) {
      for (const i of [index + d, index - d]) {
        if (i >= 0 && i < n && !this.slices.has(plane + i)) next.push(i);
      }
    }
    if (next.length) this.ask(plane, next);
  }
  // What was not answered in time is asked for again, each time after a longer wait. A busy kernel
  // still has the question.
  again() {
    if (!this.asked.size) return;
    this.onSlice(); // the reason of the wait may be another by now
    if (this.kernel === "busy") return;
    const late = performance.now() - this.patience;
    if (Math.min(...this.asked.values()) > late) return;
    this.patience = Math.min(2 * this.patience, 60000);
    this.asked.clear();
    this.fetch();
  }
}

function rgb(hex) { return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)); }

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function format(value, digits = 1) { return value.toFixed(digits).replace("-", "−"); }

// The borders of a class as closed loops of corners [row, column], the class on their left: whole
// loops, so that dashes run on along them.
function borders(labels, rows, columns, shift, code) {
  const wide = columns + 1;
  const inside = (r, c) => r >= 0 && r < rows && c >= 0 && c < columns
    && ((labels[r * columns + c] >> shift) & 3) === code;
  const next = new Map(); // corner -> corners to which an edge goes
  const add = (r0, c0, r1, c1) => {
    const from = r0 * wide + c0;
    if (!next.has(from)) next.set(from, []);
    next.get(from).push(r1 * wide + c1);
  };
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      if (!inside(r, c)) continue;
      if (!inside(r - 1, c)) add(r, c + 1, r, c);
      if (!inside(r, c - 1)) add(r, c, r + 1, c);
      if (!inside(r + 1, c)) add(r + 1, c, r + 1, c + 1);
      if (!inside(r, c + 1)) add(r + 1, c + 1, r, c + 1);
    }
  }
  const loops = [];
  for (const [start, ways] of next) {
    while (ways.length) {
      const loop = [];
      let at = start;
      do {
        loop.push([Math.floor(at / wide), at % wide]);
        at = next.get(at).pop();
      } while (at !== start);
      loops.push(loop);
    }
  }
  return loops;
}

// One picture: a canvas of screen pixels over which voxels are drawn with their true proportions.
class Picture {
  constructor(viewer, plane, readers) {
    this.viewer = viewer;
    this.plane = plane;
    this.readers = readers; // null: all that are visible
    this.canvas = element("canvas", { class: "dl-canvas", role: "img", tabindex: "-1" });
    this.voxels = document.createElement("canvas");
    this.caption = element("div", { class: "dl-caption" });
    this.wait = element("div", { class: "dl-wait", role: "status", hidden: "" });
    this.node = element("div", { class: "dl-picture" }, this.caption, this.canvas, this.wait);
    this.shown = null; // the slice that is drawn; it stays until the one that is wanted is here
    this.pointer();
  }
  get axis() { return PLANES.indexOf(this.plane); }
  get shape() {
    const [nz, ny, nx] = this.viewer.info.shape;
    return { axial: [ny, nx], coronal: [nz, nx], sagittal: [nz, ny] }[this.plane];
  }
  // Voxel [z, y, x] of a shown pixel, and back.
  voxel(row, column) {
    const [z, y, x] = this.viewer.model.get("cursor");
    const nz = this.viewer.info.shape[0];
    if (this.plane === "axial") return [z, row, column];
    if (this.plane === "coronal") return [nz - 1 - row, y, column];
    return [nz - 1 - row, column, x];
  }
  place([z, y, x]) {
    const nz = this.viewer.info.shape[0];
    return { axial: [y, x], coronal: [nz - 1 - z, x], sagittal: [nz - 1 - z, y] }[this.plane];
  }
  resize(widthPixels, most) {
    const [rows, columns] = this.shape;
    const [mmRow, mmColumn] = this.viewer.info.planes[this.plane].pixel_mm;
    const ratio = (rows * mmRow) / (columns * mmColumn);
    let width = widthPixels;
    let height = width * ratio;
    if (height > most) { height = most; width = height / ratio; }
    const scale = window.devicePixelRatio || 1;
    const w = Math.max(1, Math.round(width * scale));
    const h = Math.max(1, Math.round(height * scale));
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
  }
  get agrees() { return this.viewer.model.get("layout_mode") === "agreement" && !this.readers; }
  lesionReaders() { // those whose masks are drawn here
    const { info, model } = this.viewer;
    const visible = model.get("visible");
    return info.readers.filter((name) => name !== info.lungs && (visible[name] || []).length
      && (!this.readers || this.readers.includes(name)));
  }
  colours() {
    // Packed label byte -> [r, g, b, weight], by what is visible. One reader is filled, the others
    // are lines (`lines`): two of one colour would look alike.
    const { info, model } = this.viewer;
    const opacity = model.get("opacity");
    const visible = model.get("visible");
    const table = new Float32Array(256 * 4);
    const filled = model.get("outline") ? null : this.filled;
    for (let packed = 0; packed < 256; packed++) {
      let colour = null;
      if (this.agrees && info.pair) {
        const [a, b] = info.pair.map((name) => (packed >> (2 * info.readers.indexOf(name))) & 3);
        const k = a && a === b ? 0 : a && !b ? 1 : !a && b ? 2 : a && b ? 3 : -1;
        if (k >= 0 && this.viewer.agreement.has(info.agreement[k].name)) {
          colour = rgb(info.agreement[k].colour);
        }
      } else {
        for (const [place, name] of info.readers.entries()) {
          const code = (packed >> (2 * place)) & 3;
          if (!code || (name !== info.lungs && name !== filled)) continue;
          if (name === info.lungs) {
            if (!this.readers && (visible[name] || []).length) colour = colour || rgb(info.lung_colour);
            continue;
          }
          const kind = info.classes.find((c) => c.code === code);
          if (kind && visible[name].includes(kind.name)) colour = rgb(kind.colour);
        }
      }
      if (colour) table.set([...colour, opacity], 4 * packed);
    }
    return table;
  }
  get filled() { // the reader that is filled in: the first one, or the only one here
    const names = this.viewer.info.readers;
    const first = this.readers ? this.readers[0] : names[0];
    return this.lesionReaders().includes(first) ? first : null;
  }
  // Masks as lines along the voxels' edges, solid for the first reader and dashed for the others.
  lines(context, w, h, { rows, columns, labels }) {
    const { info, model } = this.viewer;
    const unit = window.devicePixelRatio || 1;
    const visible = model.get("visible");
    const filled = model.get("outline") ? null : this.filled;
    for (const name of this.lesionReaders()) {
      if (name === filled) continue;
      const place = info.readers.indexOf(name);
      for (const kind of info.classes) {
        if (!visible[name].includes(kind.name)) continue;
        const path = new Path2D();
        const [dx, dy] = [w / columns, h / rows];
        for (const loop of borders(labels, rows, columns, 2 * place, kind.code)) {
          loop.forEach(([r, c], k) => path[k ? "lineTo" : "moveTo"](c * dx, r * dy));
          path.closePath();
        }
        const dash = DASHES[this.readers ? 0 : Math.min(place, DASHES.length - 1)];
        context.setLineDash([]);
        context.strokeStyle = "rgba(0, 0, 0, 0.75)"; // seen on a filling of the same colour too
        context.lineWidth = 3.2 * unit;
        if (!dash.length) context.stroke(path);
        context.setLineDash(dash.map((length) => length * unit));
        if (dash.length) context.stroke(path);
        context.strokeStyle = kind.colour;
        context.lineWidth = 1.6 * unit;
        context.stroke(path);
        context.setLineDash([]);
      }
    }
  }
  draw() {
    const { viewer, plane } = this;
    const { info, model } = viewer;
    const cursor = model.get("cursor");
    const wanted = cursor[this.axis];
    const here = viewer.store.get(plane, wanted);
    if (here) this.shown = here;
    this.await(here ? null : wanted);
    this.canvas.dataset.plane = plane;
    const slice = this.shown;
    this.canvas.dataset.index = slice ? String(slice.index) : "";
    if (!slice) return;
    const words = `${plane} slice ${slice.index} of ${info.shape[this.axis]}`;
    this.canvas.setAttribute("aria-label", `Case ${info.case_id}, ${words}`);
    this.caption.textContent = (this.readers ? `${this.readers.join(", ")} · ` : "")
      + `${plane} ${slice.index}${this === viewer.large[0] && info.note ? ` · ${info.note}` : ""}`;
    const context = this.canvas.getContext("2d");
    const { rows, columns, hu, labels } = slice;
    const [level, width] = model.get("window");
    const low = level - width / 2;
    const scale = 255 / width;
    if (this.voxels.width !== columns || this.voxels.height !== rows) {
      this.voxels.width = columns;
      this.voxels.height = rows;
      this.image = null;
    }
    const inner = this.voxels.getContext("2d");
    this.image = this.image || inner.createImageData(columns, rows);
    const out = this.image.data;
    const table = labels ? this.colours() : null;
    for (let i = 0, o = 0; i < hu.length; i++, o += 4) {
      let grey = (hu[i] - low) * scale;
      grey = grey < 0 ? 0 : grey > 255 ? 255 : grey;
      let r = grey, g = grey, b = grey;
      if (table !== null && labels[i]) {
        const t = 4 * labels[i];
        const weight = table[t + 3];
        if (weight) {
          r += (table[t] - r) * weight;
          g += (table[t + 1] - g) * weight;
          b += (table[t + 2] - b) * weight;
        }
      }
      out[o] = r; out[o + 1] = g; out[o + 2] = b; out[o + 3] = 255;
    }
    inner.putImageData(this.image, 0, 0);
    const { width: w, height: h } = this.canvas;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.voxels, 0, 0, w, h);
    if (labels && !this.agrees) this.lines(context, w, h, slice);
    this.marks(context, w, h, rows, columns, cursor, here !== undefined);
  }
  // A slice that is not here yet: the last one stays under its own name, dimmed, and says so.
  await(index) {
    const { viewer, plane } = this;
    if (index === null) {
      clearTimeout(this.soon);
      this.soon = null;
      this.node.classList.remove("dl-waiting");
      this.wait.hidden = true;
      return;
    }
    const say = () => {
      this.node.classList.add("dl-waiting");
      this.wait.hidden = false;
      const shown = this.shown ? `, this is ${this.shown.index}` : "";
      const words = `waiting for ${plane} ${this.awaited}${shown} (${viewer.store.why})`;
      if (this.wait.textContent !== words) this.wait.textContent = words;
    };
    this.awaited = index;
    if (!this.wait.hidden) say();
    else if (!this.soon) this.soon = setTimeout(say, SAID_AFTER_MS);
  }
  marks(context, w, h, rows, columns, cursor, current) {
    const { info, ruler } = this.viewer;
    const unit = window.devicePixelRatio || 1;
    const [mmRow, mmColumn] = info.planes[this.plane].pixel_mm;
    const [row, column] = this.place(cursor);
    const x = ((column + 0.5) * w) / columns;
    const y = ((row + 0.5) * h) / rows;
    context.strokeStyle = current ? "rgba(120, 220, 255, 0.8)" : "transparent";
    context.lineWidth = unit;
    context.beginPath(); // open in the middle: the voxel itself stays visible
    const gap = 7 * unit;
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, w, y],
      [x, 0, x, y - gap], [x, y + gap, x, h]]) { context.moveTo(x0, y0); context.lineTo(x1, y1); }
    context.stroke();
    context.font = `600 ${12 * unit}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const write = (text, at, to) => {
      context.lineWidth = 3 * unit;
      context.strokeStyle = "rgba(0, 0, 0, 0.8)";
      context.strokeText(text, at, to);
      context.fillStyle = "#fff";
      context.fillText(text, at, to);
    };
    const [left, right, up, down] = info.planes[this.plane].letters;
    write(left, 10 * unit, h / 2); write(right, w - 10 * unit, h / 2);
    write(up, w / 2, 10 * unit); write(down, w / 2, h - 10 * unit);
    const bar = ((50 / mmColumn) * w) / columns; // 5 cm
    if (bar < 0.6 * w) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2 * unit;
      context.beginPath();
      context.moveTo(w - bar - 12 * unit, h - 24 * unit);
      context.lineTo(w - 12 * unit, h - 24 * unit);
      context.stroke();
      write("5 cm", w - bar / 2 - 12 * unit, h - 34 * unit);
    }
    this.viewer.pen?.marks(this, context, w / columns, h / rows);
    if (ruler && ruler.plane === this.plane && ruler.index === this.shown.index) {
      const [[r0, c0], [r1, c1]] = [ruler.from, ruler.to];
      const p = [c0, r0, c1, r1].map((v, k) => (v * (k % 2 ? h : w)) / (k % 2 ? rows : columns));
      context.strokeStyle = "#ffe27a";
      context.lineWidth = 1.5 * unit;
      context.beginPath(); context.moveTo(p[0], p[1]); context.lineTo(p[2], p[3]); context.stroke();
      const mm = Math.hypot((r1 - r0) * mmRow, (c1 - c0) * mmColumn);
      write(`${format(mm)} mm`, (p[0] + p[2]) / 2, (p[1] + p[3]) / 2 - 10 * unit);
    }
  }
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [rows, columns] = this.shape;
    const row = ((event.clientY - box.top) / box.height) * rows;
    const column = ((event.clientX - box.left) / box.width) * columns;
    return [Math.min(Math.max(row, 0), rows - 1e-6), Math.min(Math.max(column, 0), columns - 1e-6)];
  }
  pointer() {
    const { viewer, canvas } = this;
    let start = null;
    let turned = 0; // of a trackpad, px since its last slice
    let last = 0;
    canvas.addEventListener("wheel", (event) => {
      // Zooming and sideways are the page's.
      if (event.ctrlKey || event.metaKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      const up = event.deltaY < 0 ? 1 : -1;
      const n = viewer.info.shape[this.axis];
      const to = viewer.model.get("cursor")[this.axis] + up;
      if (to < 0 || to >= n) return; // at the end the page scrolls on
      event.preventDefault();
      if (event.timeStamp - last > 300 || Math.sign(turned) === -up) turned = 0;
      last = event.timeStamp;
      const notch = event.deltaMode !== 0 || Math.abs(event.deltaY) >= NOTCH_PX;
      turned += notch ? up * PX_A_SLICE : -event.deltaY;
      if (Math.abs(turned) < PX_A_SLICE) return;
      turned = 0;
      viewer.step(this.plane, up);
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary) { start = null; return; } // a second finger: the page's zoom
      viewer.root.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      if (viewer.pen?.down(this, event)) { start = null; return; }
      start = { x: event.clientX, y: event.clientY, at: this.at(event), moved: false,
        finger: event.pointerType === "touch", index: viewer.model.get("cursor")[this.axis],
        window: [...viewer.model.get("window")], windowing: event.button === 2 || event.shiftKey };
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = this.at(event);
      viewer.report(this, this.voxel(...at.map(Math.floor)));
      if (viewer.pen?.move(this, event)) return;
      if (!start || !event.isPrimary) return;
      const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
      start.moved = start.moved || Math.hypot(dx, dy) > (start.finger ? 8 : 3);
      if (!start.moved) return;
      if (viewer.measuring && !start.windowing) {
        viewer.ruler = { plane: this.plane, index: viewer.model.get("cursor")[this.axis],
          from: start.at, to: at };
        viewer.draw();
      } else if (start.windowing) {
        viewer.set("window", [Math.round(start.window[0] + dy * 2),
          Math.max(10, Math.round(start.window[1] + dx * 4))]);
      } else if (start.finger) { // one finger goes through the slices
        const cursor = [...viewer.model.get("cursor")];
        cursor[this.axis] = start.index - Math.round(dy / FINGER_PX_A_SLICE);
        viewer.moveTo(cursor);
      } else viewer.moveTo(this.voxel(...at.map(Math.floor)));
    });
    const end = (event) => {
      if (viewer.pen?.up(this, event)) return;
      if (start && event.isPrimary && !start.moved && !start.windowing) {
        viewer.moveTo(this.voxel(...this.at(event).map(Math.floor)));
      }
      start = null;
      viewer.save();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", (event) => {
      viewer.pen?.up(this, event);
      start = null;
    });
  }
}

class Viewer {
  constructor(model, host) {
    this.model = model;
    this.info = model.get("info");
    this.ruler = null;
    this.measuring = false;
    this.agreement = new Set(this.info.agreement.map(({ name }) => name)); // of the map, shown
    this.store = new Store(model, () => {
      this.draw();
      this.write();
      if (this.reported) this.report(...this.reported);
    });
    this.root = element("div", { class: "dl-viewer", tabindex: "0", role: "group",
      "aria-label": `CT viewer, case ${this.info.case_id}. Arrow keys change the slice, question `
        + "mark lists all keys." });
    this.build();
    host.append(this.root);
    this.changes = () => { this.arrange(); this.refresh(); };
    for (const name of FOLLOWED) model.on(`change:${name}`, this.changes);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.root);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.arrange();
    const first = model.get("first");
    this.store.show(model.get("cursor"), model.get("plane"));
    this.store.inTurn(() => this.store.take(first, first.map((s) => s.data))).then(() => this.changes());
  }
  close() {
    this.store.close();
    this.observer.disconnect();
    for (const name of FOLLOWED) this.model.off(`change:${name}`, this.changes);
  }
  set(name, value) {
    this.model.set(name, value);
    // The kernel hears of both at once: a place of another plane's axis would move the cursor.
    if (name === "plane") {
      this.model.set("slice_index", this.model.get("cursor")[PLANES.indexOf(value)]);
    }
  }
  save() { // the kernel hears of it once things are quiet, not at each turn of the wheel
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.model.save_changes(), 120);
  }
  moveTo(voxel) {
    const cursor = voxel.map((v, k) => Math.min(Math.max(v, 0), this.info.shape[k] - 1));
    const axis = PLANES.indexOf(this.model.get("plane"));
    this.model.set("cursor", cursor);
    this.model.set("slice_index", cursor[axis]);
    this.save();
  }
  step(plane, by) {
    const cursor = [...this.model.get("cursor")];
    cursor[PLANES.indexOf(plane)] += by;
    this.moveTo(cursor);
  }
  slices() { // axial slices in which any visible reader marks a lesion
    const sums = Array(this.info.shape[0]).fill(0);
    for (const [name, classes] of Object.entries(this.info.profile)) {
      for (const [kind, volumes] of Object.entries(classes)) {
        if (!(this.model.get("visible")[name] || []).includes(kind)) continue;
        volumes.forEach((ml, z) => { sums[z] += ml; });
      }
    }
    return sums;
  }
  lesion(by) {
    const sums = this.slices();
    const cursor = [...this.model.get("cursor")];
    for (let z = cursor[0] + by; z >= 0 && z < sums.length; z += by) {
      if (sums[z] > 0) { this.moveTo([z, cursor[1], cursor[2]]); return; }
    }
  }
  button(text, title, action, pressed = null) {
    const node = element("button", { type: "button", title, text });
    if (pressed !== null) node.setAttribute("aria-pressed", String(pressed));
    node.addEventListener("click", () => action(node));
    return node;
  }
  choice(label, values, current, action) {
    const select = element("select", { "aria-label": label, title: label },
      ...values.map((value) => element("option", { value, text: value })));
    select.value = current;
    select.addEventListener("change", () => action(select.value));
    return select;
  }
  build() {
    const { info, model } = this;
    const change = (name) => (value) => { this.set(name, value); this.save(); };
    this.planeChoice = this.choice("Plane", PLANES, model.get("plane"), change("plane"));
    this.windowChoice = this.choice("Window", [...Object.keys(info.windows), "own"], "lung",
      (name) => { if (info.windows[name]) change("window")([...info.windows[name]]); });
    this.layoutChoice = this.choice("Layout", info.layouts, model.get("layout_mode"),
      change("layout_mode"));
    this.outlineButton = this.button("Outline", "Masks as lines (o)",
      () => change("outline")(!model.get("outline")), false);
    this.rulerButton = this.button("Ruler", "Measure by dragging (r)", () => this.measure(), false);
    this.opacity = element("input", { type: "range", min: "0", max: "1", step: "0.05",
      "aria-label": "Opacity of the masks", title: "Opacity of the masks" });
    this.opacity.addEventListener("input", () => change("opacity")(Number(this.opacity.value)));
    const bar = element("div", { class: "dl-bar" }, this.planeChoice, this.windowChoice);
    if (info.readers.length) {
      bar.append(this.layoutChoice, this.outlineButton, this.opacity);
    }
    bar.append(this.rulerButton,
      this.button("?", "Keys", () => { this.help.hidden = !this.help.hidden; }));
    this.help = element("div", { class: "dl-help", hidden: "" });
    for (const [keys, what] of [["← ↓ / → ↑", "one slice down, up"],
      ["Page up, down", "ten slices"], ["Home, End", "lowest, highest slice"],
      ["n, p", "next, previous slice with a lesion"], ["1, 2, 3", "window"],
      ["a, c, s", "axial, coronal, sagittal"], ["m", "masks on, off"], ["o", "outline"],
      ["l", "layout"], ["r", "ruler"], ["wheel, one finger", "slices"],
      ["click, drag", "move the cross-hair"], ["Ctrl and wheel, two fingers", "the page's zoom"],
      ["shift or right button, drag", "window: width across, level down"]]) {
      this.help.append(element("div", {}, element("kbd", { text: keys }), ` ${what}`));
    }
    this.toggles = element("div", { class: "dl-bar dl-toggles" });
    this.boxes = [];
    for (const name of info.readers) {
      const kinds = name === info.lungs ? [{ name: "lung", title: "", colour: info.lung_colour }]
        : info.classes;
      const group = element("span", { class: "dl-group" }, element("b", { text: name }));
      for (const kind of kinds) {
        const box = element("input", { type: "checkbox",
          "aria-label": `${name} ${kind.title}`.trim() });
        box.addEventListener("change", () => {
          const visible = { ...model.get("visible") };
          const shown = new Set(visible[name] || []);
          if (box.checked) shown.add(kind.name); else shown.delete(kind.name);
          visible[name] = [...shown];
          change("visible")(visible);
        });
        this.boxes.push([box, name, kind.name]);
        group.append(element("label", {}, box, this.swatch(kind.colour, name), kind.title));
      }
      this.toggles.append(group);
    }
    this.mapToggles = element("div", { class: "dl-bar dl-toggles", hidden: "" });
    this.mapBoxes = info.agreement.map(({ name, colour }) => {
      const words = this.mapWords(name);
      const box = element("input", { type: "checkbox", "aria-label": `Map: ${words}` });
      box.addEventListener("change", () => {
        if (box.checked) this.agreement.add(name); else this.agreement.delete(name);
        this.refresh();
      });
      this.mapToggles.append(element("label", {}, box,
        element("i", { style: `background:${colour}` }), words));
      return [box, name];
    });
    this.pictures = element("div", { class: "dl-pictures" });
    this.slider = element("input", { type: "range", min: "0", step: "1", class: "dl-slider",
      "aria-label": "Slice" });
    this.slider.addEventListener("input", () => {
      const cursor = [...model.get("cursor")];
      cursor[PLANES.indexOf(model.get("plane"))] = Number(this.slider.value);
      this.moveTo(cursor);
    });
    this.status = element("div", { class: "dl-status", "aria-live": "off" });
    this.numbers = element("div", { class: "dl-numbers", "aria-live": "polite" });
    this.root.append(bar, this.help);
    if (info.readers.length) this.root.append(this.toggles, this.mapToggles);
    this.root.append(this.pictures, this.slider);
    const readers = Object.keys(info.profile);
    if (readers.length) {
      this.strip = element("canvas", { class: "dl-strip", role: "img",
        "aria-label": "Volume of each class by axial slice; click to go there" });
      this.strip.addEventListener("click", (event) => {
        const box = this.strip.getBoundingClientRect();
        const z = Math.floor(((event.clientX - box.left) / box.width) * info.shape[0]);
        const cursor = model.get("cursor");
        this.moveTo([z, cursor[1], cursor[2]]);
      });
      const jumps = element("div", { class: "dl-bar" },
        this.button("◀ lesion", "Previous slice with a lesion (p)", () => this.lesion(-1)),
        this.button("lesion ▶", "Next slice with a lesion (n)", () => this.lesion(1)));
      if (info.comparison) jumps.append(this.disagreements());
      this.root.append(this.strip, jumps, this.numbers);
    }
    this.root.append(this.status);
  }
  // What a reader's class looks like: filled for the first reader, a line of its own for the others.
  swatch(colour, name) {
    const { info } = this;
    const place = info.readers.indexOf(name);
    if (place === 0 || name === info.lungs) return element("i", { style: `background:${colour}` });
    const style = ["solid", "dashed", "dotted", "dashed"][Math.min(place, 3)];
    return element("i", { class: "dl-line", style: `border-top:3px ${style} ${colour}` });
  }
  mapWords(name) {
    const [reference, other] = this.info.pair || [];
    return { "reference only": `${reference} only`, "other only": `${other} only` }[name] || name;
  }
  disagreements() {
    const { slices } = this.info.comparison;
    const wrong = slices.both.map((_, z) => [z,
      slices["reference only"][z] + slices["other only"][z] + slices["class exchanged"][z]]);
    const order = wrong.filter(([, ml]) => ml > 0).sort((a, b) => b[1] - a[1]);
    const select = element("select", { "aria-label": "Slices by disagreement" },
      element("option", { value: "", text: `slices by disagreement (${order.length})` }),
      ...order.map(([z, ml]) => element("option", { value: z, text: `${z}: ${format(ml)} mL` })));
    select.addEventListener("change", () => {
      const cursor = this.model.get("cursor");
      if (select.value !== "") this.moveTo([Number(select.value), cursor[1], cursor[2]]);
    });
    return select;
  }
  arrange() { // which pictures there are
    const { info, model } = this;
    const plane = model.get("plane");
    const layout = model.get("layout_mode");
    const key = `${plane} ${layout === "side by side"}`;
    if (this.arranged === key) return;
    this.arranged = key;
    if (layout === "side by side" && info.pair) {
      this.large = info.pair.map((name) => new Picture(this, plane, [name]));
      this.small = [];
    } else {
      this.large = [new Picture(this, plane, null)];
      this.small = PLANES.filter((name) => name !== plane).map((name) => new Picture(this, name, null));
    }
    const side = element("div", { class: "dl-side" }, ...this.small.map((p) => p.node));
    this.pictures.replaceChildren(...this.large.map((p) => p.node), ...(this.small.length ? [side] : []));
  }
  refresh() {
    const { info, model } = this;
    const plane = model.get("plane");
    const cursor = model.get("cursor");
    const axis = PLANES.indexOf(plane);
    this.store.show(cursor, plane);
    this.slider.max = String(info.shape[axis] - 1);
    this.slider.value = String(cursor[axis]);
    this.planeChoice.value = plane;
    this.layoutChoice.value = model.get("layout_mode");
    this.opacity.value = String(model.get("opacity"));
    this.outlineButton.setAttribute("aria-pressed", String(model.get("outline")));
    const [level, width] = model.get("window");
    const preset = Object.entries(info.windows).find(([, w]) => w[0] === level && w[1] === width);
    this.windowChoice.value = preset ? preset[0] : "own";
    const visible = model.get("visible");
    for (const [box, name, kind] of this.boxes) box.checked = (visible[name] || []).includes(kind);
    for (const [box, name] of this.mapBoxes) box.checked = this.agreement.has(name);
    const map = model.get("layout_mode") === "agreement";
    this.toggles.hidden = map;
    this.mapToggles.hidden = !map;
    this.draw();
    this.write();
    this.report(this.large[0], cursor);
  }
  draw() {
    const width = this.root.clientWidth - 8;
    if (width <= 0 || !this.large) return;
    const most = Math.min(640, Math.max(window.innerHeight * 0.75, 240));
    const large = this.small.length ? width * 0.64 : width / this.large.length - 6;
    this.large.forEach((p) => { p.resize(large, most); p.draw(); });
    this.small.forEach((p) => { p.resize(width * 0.34, most / 2 - 14); p.draw(); });
    this.profile();
  }
  profile() {
    if (!this.strip) return;
    const { info, model, strip } = this;
    const unit = window.devicePixelRatio || 1;
    const w = Math.round((this.root.clientWidth - 8) * unit);
    const h = Math.round(54 * unit);
    if (strip.width !== w) { strip.width = w; strip.height = h; }
    const context = strip.getContext("2d");
    const style = getComputedStyle(this.root);
    context.clearRect(0, 0, w, h);
    const n = info.shape[0];
    const readers = Object.entries(info.profile);
    const top = Math.max(1e-9, ...readers.flatMap(([, kinds]) => Object.values(kinds).flat()));
    readers.forEach(([, kinds], k) => {
      info.classes.forEach((kind) => {
        const values = kinds[kind.name];
        context.beginPath();
        if (k === 0) { // the first reader is filled, the others are lines
          context.moveTo(0, h);
          values.forEach((ml, z) => {
            const y = h - (ml / top) * (h - 4);
            context.lineTo((z * w) / n, y); context.lineTo(((z + 1) * w) / n, y);
          });
          context.lineTo(w, h);
          context.fillStyle = `${kind.colour}99`;
          context.fill();
        } else {
          values.forEach((ml, z) => {
            const y = h - (ml / top) * (h - 4);
            context.lineTo((z * w) / n, y); context.lineTo(((z + 1) * w) / n, y);
          });
          context.setLineDash([[], [5 * unit, 3 * unit], [2 * unit, 2 * unit]][Math.min(k, 2)]);
          context.strokeStyle = kind.colour;
          context.lineWidth = 1.8 * unit;
          context.stroke();
          context.setLineDash([]);
        }
      });
    });
    const x = ((model.get("cursor")[0] + 0.5) * w) / n;
    context.strokeStyle = style.color;
    context.lineWidth = unit;
    context.beginPath(); context.moveTo(x, 0); context.lineTo(x, h); context.stroke();
    context.strokeRect(0.5, 0.5, w - 1, h - 1);
  }
  write() { // mL and Dice, of the axial slice and of the case
    const { info, model } = this;
    if (!this.strip || !this.large) return;
    // Of the axial slice that is seen, while another is awaited.
    const axial = [...this.large, ...this.small].find((picture) => picture.plane === "axial");
    const z = axial?.shown ? axial.shown.index : model.get("cursor")[0];
    const written = `${z} ${model.get("layout_mode")}`;
    if (this.written === written) return; // a screen reader hears it once
    this.written = written;
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const table = element("table", {}, element("caption", { text: `mL: axial slice ${z} / case` }));
    const row = (cells, tag = "td") => element("tr", {}, ...cells.map((text, k) => element(
      k && tag === "td" ? "td" : "th", k ? {} : { scope: "row" },
      text instanceof Node ? text : String(text))));
    if (info.comparison && model.get("layout_mode") === "agreement") {
      const { slices, case: whole } = info.comparison;
      for (const { name, colour } of info.agreement) {
        const chip = element("span", {}, element("i", { style: `background:${colour}` }),
          this.mapWords(name));
        table.append(row([chip, `${format(slices[name][z])} / ${format(whole[name])}`]));
      }
    } else {
      for (const [name, kinds] of Object.entries(info.profile)) {
        for (const kind of info.classes) {
          const values = kinds[kind.name];
          const chip = element("span", {}, this.swatch(kind.colour, name),
            `${name}: ${kind.title.toLowerCase()}`);
          table.append(row([chip, `${format(values[z])} / ${format(sum(values))}`]));
        }
      }
    }
    this.numbers.replaceChildren(table);
    if (info.comparison) {
      const { slices, case: whole } = info.comparison;
      const dice = element("table", {}, element("caption", {
        text: `Dice, ${info.pair.join(" and ")}: slice / case` }));
      const show = (value) => (value === null ? "–" : format(value, 3));
      for (const [name, value] of Object.entries(whole.dice)) {
        dice.append(row([info.titles[name], `${show(slices.dice[name][z])} / ${show(value)}`]));
      }
      this.numbers.append(dice);
    }
  }
  report(picture, [z, y, x]) {
    this.reported = [picture, [z, y, x]]; // again, when its slice has come
    const { info } = this;
    const [row, column] = picture.place([z, y, x]);
    const index = [z, y, x][picture.axis];
    const slice = this.store.get(picture.plane, index);
    const mm = [0, 1, 2].map((k) => info.affine[k][0] * x + info.affine[k][1] * y
      + info.affine[k][2] * z + info.affine[k][3]);
    const parts = [];
    if (slice) {
      const i = row * slice.columns + column;
      parts.push(`${String(slice.hu[i]).replace("-", "−")} HU`);
      info.readers.forEach((name, place) => {
        const code = slice.labels ? (slice.labels[i] >> (2 * place)) & 3 : 0;
        if (!code) return;
        const kind = info.classes.find((c) => c.code === code);
        parts.push(name === info.lungs ? "in the lungs" : `${name}: ${kind.title.toLowerCase()}`);
      });
    }
    const [level, width] = this.model.get("window");
    parts.push(`voxel z ${z}, y ${y}, x ${x}`,
      `${mm.map((v) => format(v)).join(", ")} mm (RAS)`,
      `window ${format(level, 0)} / ${format(width, 0)} HU`);
    if (this.model.get("message")) parts.unshift(this.model.get("message"));
    this.status.textContent = parts.join(" · ");
  }
  measure() {
    this.measuring = !this.measuring;
    this.rulerButton.setAttribute("aria-pressed", String(this.measuring));
    if (!this.measuring) { this.ruler = null; this.draw(); }
  }
  key(event) {
    if (this.pen?.key(event)) return;
    if (["SELECT", "INPUT"].includes(event.target.tagName) && event.target.type !== "checkbox") {
      return; // they have keys of their own
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { info, model } = this;
    const plane = model.get("plane");
    const axis = PLANES.indexOf(plane);
    const to = (index) => {
      const cursor = [...model.get("cursor")];
      cursor[axis] = index;
      this.moveTo(cursor);
    };
    const set = (name, value) => { this.set(name, value); this.save(); };
    const shown = Object.values(model.get("visible")).some((kinds) => kinds.length);
    const actions = {
      ArrowUp: () => this.step(plane, 1), ArrowRight: () => this.step(plane, 1),
      ArrowDown: () => this.step(plane, -1), ArrowLeft: () => this.step(plane, -1),
      PageUp: () => this.step(plane, 10), PageDown: () => this.step(plane, -10),
      Home: () => to(0), End: () => to(info.shape[axis] - 1),
      n: () => this.lesion(1), p: () => this.lesion(-1),
      a: () => set("plane", "axial"), c: () => set("plane", "coronal"),
      s: () => set("plane", "sagittal"), o: () => set("outline", !model.get("outline")),
      r: () => this.measure(), "?": () => { this.help.hidden = !this.help.hidden; },
      l: () => set("layout_mode", info.layouts[(info.layouts.indexOf(model.get("layout_mode")) + 1)
        % info.layouts.length]),
      m: () => {
        if (model.get("layout_mode") === "agreement") {
          const names = this.agreement.size ? [] : info.agreement.map(({ name }) => name);
          this.agreement = new Set(names);
          this.refresh();
          return;
        }
        if (shown) this.remembered = model.get("visible");
        set("visible", shown ? Object.fromEntries(info.readers.map((name) => [name, []]))
          : this.remembered || model.get("visible"));
      },
    };
    Object.values(info.windows).forEach((window_, k) => {
      actions[String(k + 1)] = () => set("window", [...window_]);
    });
    const action = actions[event.key];
    if (!action || (event.target.tagName === "BUTTON" && event.key === "Enter")) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has keys of its own
    action();
  }
}

function show({ model, el }, Kind) {
  const viewer = new Kind(model, el);
  const showStill = hideStill(model);
  el.viewer = viewer;
  return () => {
    // The picture stays where the widget was, when it is closed: beside its place, which is hidden.
    const last = viewer.large[0].canvas;
    const host = el.closest(".jp-OutputArea-output, .output_subarea");
    if (host && last.width > 1) {
      const still = element("img", { src: last.toDataURL(), class: "dl-still",
        alt: last.getAttribute("aria-label") });
      host.after(still);
    } else showStill();
    viewer.close();
  };
}
