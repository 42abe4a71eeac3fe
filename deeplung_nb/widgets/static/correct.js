// Drawing into a mask. A stroke is shown at once, goes to the kernel as a few numbers, and counts
// when the kernel has said that it is on disk; what the kernel sends back is what is true.

const IDLE_MS = 30000; // a longer pause between two movements is no work
const TELL_MS = 20000; // time at work is told so often where nothing is drawn
const TOOLS = [["brush", "Brush", "b"], ["erase", "Eraser", "e"], ["polygon", "Polygon", "y"],
  ["grow", "Grow", "g"], ["swap", "Swap class", "w"], ["look", "Look", "v"]];

class Pen {
  constructor(viewer) {
    this.viewer = viewer;
    this.model = viewer.model;
    this.tool = "brush";
    this.code = viewer.info.classes[0].code;
    this.radius = 5; // mm
    this.limits = null; // HU
    this.inLungs = false;
    this.stroke = null; // under way
    this.corners = null; // of a polygon under way
    this.pending = []; // sent, and not yet on disk
    this.hover = null;
    this.number = 0;
    this.drawn = {}; // plane -> the last two slices that were drawn on
    this.worked = 0; // ms since the kernel was told
    this.seen = null;
    this.listener = (content, buffers) => {
      viewer.store.inTurn(() => this.hear(content, buffers));
    };
    this.changed = () => this.say();
    this.model.on("msg:custom", this.listener);
    this.model.on("change:state", this.changed);
    this.clock = setInterval(() => this.tell(), TELL_MS);
    for (const kind of ["pointerdown", "pointermove", "keydown", "wheel"]) {
      viewer.root.addEventListener(kind, () => this.work(), { passive: true, capture: true });
    }
  }
  close() {
    this.tell();
    clearInterval(this.clock);
    this.model.off("msg:custom", this.listener);
    this.model.off("change:state", this.changed);
  }
  get state() { return this.model.get("state"); }
  // ---- time ----
  work() {
    const now = performance.now();
    if (this.seen !== null && now - this.seen < IDLE_MS) this.worked += now - this.seen;
    this.seen = now;
  }
  seconds() {
    const spent = this.worked / 1000;
    this.worked = 0;
    return spent;
  }
  tell() {
    if (this.state.finished) this.worked = 0;
    if (this.worked > 500 && !this.dead) this.viewer.store.send({ kind: "active", seconds: this.seconds() });
  }
  // ---- to the kernel and back ----
  get dead() { return this.viewer.store.lost || GONE.includes(this.viewer.store.kernel); }
  get active() { return this.tool !== "look" && !this.state.finished && !this.dead; }
  send(stroke) {
    if (this.dead || this.state.finished) { this.say(); return; }
    this.number += 1;
    const [plane, index] = [stroke.plane, stroke.index];
    if (plane !== undefined && stroke.code) {
      const last = this.drawn[plane] || [];
      if (last[0] !== index) this.drawn[plane] = [index, last[0]];
    }
    this.pending.push({ number: this.number, stroke });
    this.viewer.store.send({ kind: "stroke", number: this.number, stroke,
      seconds: this.seconds(), cursor: this.model.get("cursor") });
    this.say();
  }
  async hear(content, buffers) {
    if (content.kind === "refused") {
      this.pending = this.pending.filter((one) => one.number !== content.number);
      this.why = content.why;
      this.forget(this.viewer.info.shape.map((n) => [0, n - 1]), content); // what was shown of it
      await this.replace(content, buffers);
    } else if (content.kind === "drawn") {
      this.pending = this.pending.filter((one) => one.number !== content.number);
      if (content.number) this.why = "";
      this.forget(content.box, content);
      const { info } = this.viewer;
      for (const [kind, values] of Object.entries(content.profile.values)) {
        info.profile[info.reader][kind].splice(content.profile.from, values.length, ...values);
      }
      await this.replace(content, buffers);
      this.viewer.written = "";
      this.viewer.write();
      this.viewer.profile();
    } else return;
    this.say();
  }
  // Slices that a stroke went through, but for those that came with the news: these are drawn on
  // until they are unpacked.
  forget(box, { slices }) {
    const { store } = this.viewer;
    if (!box) return;
    const here = new Set(slices.map((s) => s.plane + s.index));
    for (const [key, s] of store.slices) {
      const [low, high] = box[PLANES.indexOf(s.plane)];
      if (here.has(key) || s.index < low || s.index > high) continue;
      store.bytes -= 3 * s.rows * s.columns;
      store.slices.delete(key);
    }
  }
  async replace(content, buffers) {
    await this.viewer.store.take(content.slices, buffers);
    // Strokes that the kernel had not heard of when it sent these.
    for (const { stroke } of this.pending) this.preview(stroke);
    if (this.stroke) this.preview(this.stroke.stroke);
    this.viewer.draw();
  }
  // ---- what is shown before the kernel has answered ----
  preview(stroke, from = 0) {
    if (stroke.tool !== "brush") return;
    const slice = this.viewer.store.get(stroke.plane, stroke.index);
    if (!slice) return;
    const { info } = this.viewer;
    const [mmRow, mmColumn] = info.planes[stroke.plane].pixel_mm;
    const { rows, columns, labels, hu } = slice;
    const turn = stroke.plane === "axial" ? (p) => p : ([z, c]) => [info.shape[0] - 1 - z, c];
    const path = stroke.path.map(turn);
    const shift = 2 * info.readers.indexOf(info.reader);
    const lungs = stroke.in_lungs ? 2 * info.readers.indexOf(info.lungs) : null;
    const keep = 0xff ^ (3 << shift);
    const set = (r, c) => {
      const i = r * columns + c;
      if (stroke.hu && (hu[i] < stroke.hu[0] || hu[i] > stroke.hu[1])) return;
      if (lungs !== null && !((labels[i] >> lungs) & 3)) return;
      labels[i] = (labels[i] & keep) | (stroke.code << shift);
    };
    const reach = [stroke.radius_mm / mmRow, stroke.radius_mm / mmColumn];
    for (let k = Math.max(0, from - 1); k < path.length; k++) {
      const [r0, c0] = path[k];
      const [r1, c1] = path[Math.min(k + 1, path.length - 1)];
      const [dy, dx] = [(r1 - r0) * mmRow, (c1 - c0) * mmColumn];
      const length = dy * dy + dx * dx;
      const first = Math.max(0, Math.floor(Math.min(r0, r1) - reach[0]));
      const last = Math.min(rows - 1, Math.ceil(Math.max(r0, r1) + reach[0]));
      const left = Math.max(0, Math.floor(Math.min(c0, c1) - reach[1]));
      const right = Math.min(columns - 1, Math.ceil(Math.max(c0, c1) + reach[1]));
      for (let r = first; r <= last; r++) {
        for (let c = left; c <= right; c++) {
          const [y, x] = [(r - r0) * mmRow, (c - c0) * mmColumn];
          const t = length ? Math.min(1, Math.max(0, (y * dy + x * dx) / length)) : 0;
          if ((y - t * dy) ** 2 + (x - t * dx) ** 2 <= stroke.radius_mm ** 2) set(r, c);
        }
      }
      const [r, c] = [Math.round(r0), Math.round(c0)];
      if (r >= 0 && r < rows && c >= 0 && c < columns) set(r, c);
    }
  }
  // ---- pointer ----
  place(picture, [row, column]) { // of the plane's two axes, in voxels, a voxel's centre whole
    const [r, c] = [row - 0.5, column - 0.5];
    return [picture.plane === "axial" ? r : this.viewer.info.shape[0] - 1 - r, c];
  }
  begin(picture) {
    const index = this.model.get("cursor")[picture.axis];
    const stroke = { plane: picture.plane, index, code: this.tool === "erase" ? 0 : this.code };
    if (this.limits) stroke.hu = this.limits;
    if (this.inLungs) stroke.in_lungs = true;
    return stroke;
  }
  down(picture, event) {
    if (!this.active || event.button !== 0 || event.shiftKey || event.pointerType === "touch"
        || this.viewer.measuring
        || picture.shown?.index !== this.model.get("cursor")[picture.axis]) return false;
    const at = picture.at(event);
    if (this.tool === "polygon") {
      const last = this.clicked; // a second click at the same place closes it
      this.clicked = { at: performance.now(), x: event.clientX, y: event.clientY };
      this.corner(picture, this.place(picture, at), last && this.clicked.at - last.at < 400
        && Math.hypot(event.clientX - last.x, event.clientY - last.y) < 5);
    } else if (this.tool === "brush" || this.tool === "erase") {
      this.stroke = { picture, stroke: { ...this.begin(picture), tool: "brush",
        radius_mm: this.radius, path: [this.round(this.place(picture, at))] } };
      this.preview(this.stroke.stroke);
      picture.draw();
    } else this.point(picture, picture.voxel(...at.map(Math.floor)));
    return true;
  }
  round(place) { return place.map((v) => Math.round(100 * v) / 100); }
  move(picture, event) {
    this.hover = this.active ? { picture, at: picture.at(event) } : null;
    if (!this.stroke || this.stroke.picture !== picture) {
      if (this.active && this.hover) this.soon(picture);
      return this.active && (event.buttons & 1) === 1 && !event.shiftKey
        && event.pointerType !== "touch";
    }
    const { path } = this.stroke.stroke;
    const n = path.length;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) {
      path.push(this.round(this.place(picture, picture.at(one))));
    }
    this.preview(this.stroke.stroke, n);
    this.soon(picture);
    return true;
  }
  soon(picture) { // one drawing a frame
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = null; picture.draw(); });
  }
  up() {
    if (!this.stroke) return this.active && this.tool !== "look";
    const { stroke } = this.stroke;
    this.stroke = null;
    this.send(stroke);
    return true;
  }
  corner(picture, place, closes) {
    const index = this.model.get("cursor")[picture.axis];
    if (!this.corners || this.corners.plane !== picture.plane || this.corners.index !== index) {
      this.corners = { ...this.begin(picture), tool: "polygon", path: [] };
    }
    if (closes) { this.closePolygon(); return; }
    this.corners.path.push(this.round(place));
    this.viewer.draw();
  }
  closePolygon() {
    const polygon = this.corners;
    this.corners = null;
    if (polygon && polygon.path.length > 2) this.send(polygon);
    this.viewer.draw();
  }
  point(picture, at) { // tools that need a place only
    const stroke = { ...this.begin(picture), tool: this.tool, at };
    if (this.tool === "swap") { delete stroke.hu; delete stroke.in_lungs; }
    if (this.tool === "grow") {
      const [r, c] = picture.place(at);
      const hu = picture.shown.hu[r * picture.shown.columns + c];
      stroke.hu = this.limits || [hu - 120, hu + 120];
      stroke.in_lungs = this.viewer.info.readers.includes(this.viewer.info.lungs);
    }
    stroke.whole = this.whole;
    this.send(stroke);
  }
  slice(tool, extra = {}) { // tools for the slice that is looked at
    const plane = this.model.get("plane");
    const index = this.model.get("cursor")[PLANES.indexOf(plane)];
    this.send({ tool, plane, index, code: this.code, ...extra });
  }
  interpolate() {
    const plane = this.model.get("plane");
    const index = this.model.get("cursor")[PLANES.indexOf(plane)];
    const from = (this.drawn[plane] || []).find((other) => other !== undefined && other !== index);
    if (from === undefined) {
      this.why = "draw this class in two slices of this plane first, with some between them";
      this.say();
    } else this.slice("interpolate", { from });
  }
  copy(by) {
    const plane = this.model.get("plane");
    const axis = PLANES.indexOf(plane);
    const from = this.model.get("cursor")[axis] + by;
    if (from >= 0 && from < this.viewer.info.shape[axis]) this.slice("copy", { from, code: null });
  }
  undo() { this.send({ tool: "undo" }); }
  redo() { this.send({ tool: "redo" }); }
  // ---- keyboard ----
  nudge(key) { // the cross-hair within the picture
    const plane = this.model.get("plane");
    const picture = this.viewer.large[0];
    const [r, c] = picture.place(this.model.get("cursor"));
    const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1],
      ArrowRight: [0, 1] }[key];
    const [rows, columns] = picture.shape;
    const at = picture.voxel(Math.min(Math.max(r + dr, 0), rows - 1),
      Math.min(Math.max(c + dc, 0), columns - 1));
    at[PLANES.indexOf(plane)] = this.model.get("cursor")[PLANES.indexOf(plane)];
    this.viewer.moveTo(at);
  }
  dab() {
    const picture = this.viewer.large[0];
    const at = this.model.get("cursor");
    const two = at.filter((_, k) => k !== picture.axis);
    if (this.tool === "polygon") this.corner(picture, two, false);
    else if (this.tool === "brush" || this.tool === "erase") {
      const stroke = { ...this.begin(picture), tool: "brush", radius_mm: this.radius, path: [two] };
      this.preview(stroke);
      this.viewer.draw();
      this.send(stroke);
    } else this.point(picture, [...at]);
  }
  key(event) {
    const typing = ["SELECT", "INPUT", "TEXTAREA"].includes(event.target.tagName)
      && !["checkbox", "range"].includes(event.target.type);
    if (typing) return false;
    const pressed = event.key;
    let action = null;
    if ((event.ctrlKey || event.metaKey) && !event.altKey) {
      action = { z: () => (event.shiftKey ? this.redo() : this.undo()), Z: () => this.redo(),
        y: () => this.redo() }[pressed];
    } else if (event.shiftKey && pressed.startsWith("Arrow")) action = () => this.nudge(pressed);
    else if (!event.altKey && !event.ctrlKey && !event.metaKey) {
      const onButton = event.target.tagName === "BUTTON" && (pressed === " " || pressed === "Enter");
      action = onButton ? null : { u: () => this.undo(), U: () => this.redo(),
        x: () => this.choose("code", this.code === 1 ? 2 : 1),
        "[": () => this.choose("radius", Math.max(1, this.radius - 1)),
        "]": () => this.choose("radius", Math.min(40, this.radius + 1)),
        f: () => this.slice("fill"), i: () => this.interpolate(), k: () => this.copy(-1),
        K: () => this.copy(1), " ": () => { if (this.active) this.dab(); },
        Enter: () => this.closePolygon(),
        Escape: () => { this.corners = null; this.viewer.draw(); },
        ...Object.fromEntries(TOOLS.map(([name, , key]) => [key, () => this.choose("tool", name)])),
      }[pressed];
    }
    if (!action) return false;
    event.preventDefault();
    event.stopPropagation();
    action();
    return true;
  }
  // ---- what is seen of it ----
  marks(picture, context, dx, dy) {
    const unit = window.devicePixelRatio || 1;
    const { info } = this.viewer;
    context.lineWidth = 1.5 * unit;
    context.strokeStyle = this.tool === "erase" ? "#ffffff"
      : info.classes.find((kind) => kind.code === this.code).colour;
    const round = this.tool === "brush" || this.tool === "erase";
    if (this.active && round && this.hover?.picture === picture) {
      const [row, column] = this.hover.at;
      const [mmRow, mmColumn] = info.planes[picture.plane].pixel_mm;
      context.beginPath();
      context.ellipse(column * dx, row * dy, Math.max(1, (this.radius / mmColumn) * dx),
        Math.max(1, (this.radius / mmRow) * dy), 0, 0, 2 * Math.PI);
      context.stroke();
    }
    const polygon = this.corners;
    if (polygon?.plane === picture.plane && polygon.index === picture.shown?.index) {
      context.beginPath();
      for (const [a, b] of polygon.path) {
        const row = picture.plane === "axial" ? a : info.shape[0] - 1 - a;
        context.lineTo((b + 0.5) * dx, (row + 0.5) * dy);
      }
      context.stroke();
      for (const [a, b] of polygon.path) {
        const row = picture.plane === "axial" ? a : info.shape[0] - 1 - a;
        context.strokeRect((b + 0.5) * dx - 2 * unit, (row + 0.5) * dy - 2 * unit, 4 * unit, 4 * unit);
      }
    }
  }
  choose(name, value) {
    this[name] = value;
    if (name === "tool" && value !== "polygon") this.corners = null;
    this.sync();
    this.viewer.draw();
  }
  build() {
    const { viewer } = this;
    const { info } = viewer;
    this.toolButtons = TOOLS.map(([name, title, key]) => [name, viewer.button(title,
      `${title} (${key})`, () => this.choose("tool", name), false)]);
    this.codeButtons = info.classes.map((kind) => {
      const node = viewer.button("", `Draw ${kind.title} (x: the other class)`,
        () => this.choose("code", kind.code), false);
      node.append(element("i", { style: `background:${kind.colour}` }), kind.title);
      return [kind.code, node];
    });
    const number = (label, value, low, high, action) => {
      const node = element("input", { type: "number", min: low, max: high, step: "1", value,
        "aria-label": label, title: label, class: "dl-number" });
      node.addEventListener("change", () => action(node.value === "" ? null : Number(node.value)));
      return node;
    };
    this.radiusInput = number("Radius of the brush, mm", this.radius, 1, 40,
      (value) => this.choose("radius", Math.min(40, Math.max(1, value ?? 5))));
    const limit = () => {
      const [low, high] = [this.low.value, this.high.value].map((v) => (v === "" ? null : Number(v)));
      this.limits = low === null && high === null ? null
        : [Math.max(-32768, low ?? -32768), Math.min(32767, high ?? 32767)];
      if (this.limits && this.limits[0] > this.limits[1]) this.limits.reverse();
    };
    this.low = number("Draw only from this HU on", "", -1024, 3000, limit);
    this.high = number("Draw only up to this HU", "", -1024, 3000, limit);
    this.low.placeholder = "from HU";
    this.high.placeholder = "to HU";
    const tick = (words, action, on = false) => {
      const box = element("input", { type: "checkbox" });
      box.checked = on;
      box.addEventListener("change", () => action(box.checked));
      return element("label", {}, box, words);
    };
    this.undoButton = viewer.button("Undo", "Take the last stroke back (u, Ctrl+Z)",
      () => this.undo());
    this.redoButton = viewer.button("Redo", "Draw it again (U, Ctrl+Y)", () => this.redo());
    this.finishButton = viewer.button("Finish reading", "Write the mask and lock the reading",
      () => this.finish());
    this.reason = element("input", { type: "text", class: "dl-reason", maxlength: "300",
      placeholder: "why is it reopened?", "aria-label": "Reason for reopening the reading" });
    this.reopenButton = viewer.button("Reopen", "Go on with a finished reading; the reason is kept",
      () => this.viewer.store.send({ kind: "reopen", reason: this.reason.value }));
    const whole = tick("all slices", (on) => { this.whole = on; });
    whole.title = "Grow and swap go through all slices";
    const bars = [
      element("div", { class: "dl-bar", role: "toolbar", "aria-label": "Tools" },
        ...this.toolButtons.map(([, node]) => node), element("span", { class: "dl-group" },
          ...this.codeButtons.map(([, node]) => node))),
      element("div", { class: "dl-bar" }, element("label", {}, "radius ", this.radiusInput, " mm"),
        this.low, this.high,
        ...(info.readers.includes(info.lungs) ? [tick("in the lungs",
          (on) => { this.inLungs = on; })] : []), whole),
      element("div", { class: "dl-bar" }, this.undoButton, this.redoButton,
        viewer.button("Fill holes", "Holes of this class in this slice (f)",
          () => this.slice("fill")),
        viewer.button("Interpolate", "Between the last two slices that were drawn on (i)",
          () => this.interpolate()),
        viewer.button("Copy from below", "Marks of the slice before this one (k)",
          () => this.copy(-1)),
        viewer.button("Copy from above", "Marks of the slice after this one (K)",
          () => this.copy(1)),
        this.finishButton, this.reason, this.reopenButton)];
    this.words = element("div", { class: "dl-status dl-kept", role: "status" });
    viewer.root.prepend(...bars, this.words);
    for (const [keys, what] of [["b, e, y, g, w, v", "brush, eraser, polygon, grow, swap, look"],
      ["x", "the other class"], ["[, ]", "smaller, larger brush"],
      ["Shift and arrows", "move the cross-hair in the picture"],
      ["space", "draw at the cross-hair"], ["Enter, Escape", "close, drop a polygon"],
      ["u, U", "undo, redo"], ["f, i", "fill holes, interpolate"],
      ["k, K", "copy from the slice below, above"]]) {
      viewer.help.append(element("div", {}, element("kbd", { text: keys }), ` ${what}`));
    }
    this.sync();
    this.say();
    // Another view of this reading, or an earlier one, may have drawn since the cell was run.
    this.viewer.store.send({ kind: "fresh" });
  }
  finish() {
    if (this.dead) { this.say(); return; }
    this.viewer.store.send({ kind: "finish", seconds: this.seconds() });
  }
  sync() {
    for (const [name, node] of this.toolButtons) {
      node.setAttribute("aria-pressed", String(name === this.tool));
    }
    for (const [code, node] of this.codeButtons) {
      node.setAttribute("aria-pressed", String(code === this.code));
    }
    this.radiusInput.value = String(this.radius);
  }
  say() {
    const { finished, can_undo: undo, can_redo: redo, strokes, reader } = this.state;
    this.undoButton.disabled = !undo || finished;
    this.redoButton.disabled = !redo || finished;
    this.finishButton.hidden = finished;
    this.reason.hidden = this.reopenButton.hidden = !finished;
    const n = this.pending.length;
    const kept = finished ? "finished and locked" : n ? `${n} not on disk yet` : "all on disk";
    const words = this.dead
      ? "The kernel is gone: nothing more is drawn. Run this cell again, and go on: what was drawn "
        + `before is on disk${n ? `, but for the last ${n === 1 ? "stroke" : `${n} strokes`}` : ""}`
      : `${this.why ? `${this.why} · ` : ""}Reading of ${reader}: ${strokes} `
        + `${strokes === 1 ? "stroke" : "strokes"}, ${kept}`;
    if (this.words.textContent !== words) this.words.textContent = words;
  }
}

class Corrector extends Viewer {
  build() {
    super.build();
    this.pen = new Pen(this);
    this.pen.build();
  }
  draw() {
    super.draw();
    this.pen?.say();
  }
  close() {
    this.pen.close();
    super.close();
  }
}

export default { render: (context) => show(context, Corrector) };
