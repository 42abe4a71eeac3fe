// Viewer and explorer in a page without a kernel: all data stand in the page, packed. Nothing is
// fetched, nothing is stored. The numbers were computed beforehand; here they are drawn.

const SVG = "http://www.w3.org/2000/svg";
const LOWEST_HU = -1024;
const WINDOW_HU = 1624; // of the stored bytes: -1024 to 600
const KEPT_CASES = 2;
const FIRST_ROWS = 100;

async function inflate(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A case's voxels as they lie in the page: rounded HU, of which each row holds differences, then
// the masks of all readers.
class Volume {
  constructor(bytes, [nz, ny, nx]) {
    const n = nz * ny * nx;
    this.shape = [nz, ny, nx];
    this.grey = bytes.subarray(0, n);
    for (let row = 0; row < n; row += nx) {
      for (let i = row + 1; i < row + nx; i++) this.grey[i] = (this.grey[i] + this.grey[i - 1]) & 255;
    }
    this.labels = bytes.length > n ? bytes.subarray(n) : null;
  }
  slice(plane, index) { // as the kernel would cut it
    const [nz, ny, nx] = this.shape;
    const [rows, columns] = { axial: [ny, nx], coronal: [nz, nx], sagittal: [nz, ny] }[plane];
    const at = (r, c) => {
      if (plane === "axial") return (index * ny + r) * nx + c;
      const z = nz - 1 - r;
      return plane === "coronal" ? (z * ny + index) * nx + c : (z * ny + c) * nx + index;
    };
    const hu = new Int16Array(rows * columns);
    const labels = this.labels && new Uint8Array(rows * columns);
    for (let r = 0, k = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, k++) {
        const i = at(r, c);
        hu[k] = Math.round(LOWEST_HU + (this.grey[i] * WINDOW_HU) / 255);
        if (labels) labels[k] = this.labels[i];
      }
    }
    return { plane, index, rows, columns, hu, labels };
  }
}

// What a widget's page half asks of its kernel, answered by the page.
class PageModel {
  constructor(state, volume) {
    this.state = { ...state, first: [] };
    this.volume = volume;
    this.heard = new Map();
  }
  get(name) { return this.state[name]; }
  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    this.tell(`change:${name}`);
  }
  on(name, action) { this.heard.set(name, [...(this.heard.get(name) || []), action]); }
  off(name, action) {
    this.heard.set(name, (this.heard.get(name) || []).filter((one) => one !== action));
  }
  tell(name, ...content) { for (const action of this.heard.get(name) || []) action(...content); }
  save_changes() {}
  send({ kind, plane, indices }) {
    if (kind !== "slices") return;
    queueMicrotask(() => this.tell("msg:custom", { kind,
      slices: indices.map((index) => this.volume.slice(plane, index)) }, []));
  }
}

const volumes = new Map(); // id -> promise of a Volume, the last ones

function openVolume(id, shape) {
  if (!volumes.has(id)) volumes.set(id, inflate(id).then((bytes) => new Volume(bytes, shape)));
  for (const old of [...volumes.keys()].slice(0, -KEPT_CASES)) volumes.delete(old);
  return volumes.get(id);
}

async function showCase(host, { id, state }) {
  host.close?.();
  host.replaceChildren(element("p", { class: "dp-wait", role: "status", text: "opening …" }));
  const volume = await openVolume(id, state.info.shape);
  host.replaceChildren();
  const viewer = new Viewer(new PageModel(state, volume), host);
  host.viewer = viewer;
  host.close = () => viewer.close();
}

// ---- plots ----

function drawn(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of high < 20 * low ? [1, 1.5, 2, 3, 5, 7] : [1]) found.push(step * 10 ** power);
    }
    return found.filter((value) => value >= low && value <= high);
  }
  const raw = (high - low) / 5;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * size).find((one) => one >= raw);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
  return found;
}

const shownNumber = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

class Plot {
  constructor(width, height, right) {
    this.box = { left: 62, top: 54, right: width - right, bottom: height - 44 };
    this.root = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "dp-plot", role: "group" });
  }
  axes({ x, y, log = false, labels, title }) {
    this.log = log;
    [this.x, this.y] = [x, y];
    const { left, top, right, bottom } = this.box;
    this.root.replaceChildren();
    title.forEach((text, k) => this.root.append(drawn("text", { x: 4, y: 13 + 14 * k, text })));
    for (const value of ticks(...x)) {
      const at = this.across(value);
      this.root.append(drawn("line", { x1: at, x2: at, y1: bottom, y2: bottom + 4, class: "dp-ink" }),
        drawn("text", { x: at, y: bottom + 16, "text-anchor": "middle", text: shownNumber(value) }));
    }
    for (const value of ticks(...y, log)) {
      const at = this.up(value);
      this.root.append(drawn("line", { x1: left - 4, x2: left, y1: at, y2: at, class: "dp-ink" }),
        drawn("text", { x: left - 7, y: at + 4, "text-anchor": "end", text: shownNumber(value) }));
    }
    this.root.append(drawn("path", { class: "dp-ink", d: `M${left} ${top}V${bottom}H${right}` }),
      drawn("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle",
        text: labels[0] }),
      drawn("text", { x: 12, y: (top + bottom) / 2, "text-anchor": "middle", text: labels[1],
        transform: `rotate(-90 12 ${(top + bottom) / 2})` }));
  }
  across(value) {
    const [low, high] = this.x;
    return this.box.left + ((value - low) / (high - low)) * (this.box.right - this.box.left);
  }
  up(value) {
    const f = this.log ? Math.log : (one) => one;
    const [low, high] = this.y.map(f);
    return this.box.bottom - ((f(value) - low) / (high - low)) * (this.box.bottom - this.box.top);
  }
  line(xs, ys, kind) {
    const d = xs.map((x, k) => `${k ? "L" : "M"}${this.across(x).toFixed(1)} ${this.up(ys[k]).toFixed(1)}`);
    this.root.append(drawn("path", { d: d.join(""), class: kind }));
  }
  level(y, kind) { this.line(this.x, [y, y], kind); }
  band([low, high]) {
    const [a, b] = [low, high].map((y) => Math.min(Math.max(y, this.y[0]), this.y[1]));
    this.root.append(drawn("rect", { class: "dp-band", x: this.box.left, y: this.up(b),
      width: this.box.right - this.box.left, height: Math.max(this.up(a) - this.up(b), 0) }));
  }
  name(x, y, text) {
    text.split("\n").forEach((line, k, all) => this.root.append(drawn("text", {
      x: x + 4, y: this.up(y) + 4 + 12 * (k - (all.length - 1) / 2), text: line })));
  }
  points(xs, ys, numbers, looks, onPick) {
    xs.forEach((x, k) => {
      const node = drawn("circle", { cx: this.across(x).toFixed(1), cy: this.up(ys[k]).toFixed(1),
        r: 4, class: looks[k], "data-case": numbers[k] });
      node.addEventListener("click", () => onPick(numbers[k]));
      this.root.append(node);
    });
  }
}

function reach(values, share, zero = false) {
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const room = share * (high - low || Math.abs(high) || 1);
  return [zero && low >= 0 ? 0 : low - room, high + room];
}

// Mean and difference of each pair on a scale; null where it can't express them.
const PLACES = {
  difference: (a, b, d) => [(a + b) / 2, d],
  percent: (a, b, d) => (a + b === 0 ? null : [(a + b) / 2, (200 * d) / (a + b)]),
  ratio: (a, b) => (a > 0 && b > 0 ? [Math.sqrt(a * b), b / a] : null),
};

// ---- a table that sorts and filters ----

class Table {
  constructor(columns, rows, onPick, sorted) {
    this.columns = columns;
    this.rows = rows; // [number, cells]
    this.onPick = onPick;
    [this.by, this.down] = sorted;
    this.most = FIRST_ROWS;
    this.filter = element("input", { type: "search", placeholder: "filter, such as contrast",
      "aria-label": "Only rows that contain these words" });
    this.filter.addEventListener("input", () => { this.most = FIRST_ROWS; this.fill(); });
    this.count = element("span", { class: "dp-count", role: "status" });
    this.head = element("tr");
    columns.forEach((name, k) => {
      const button = element("button", { type: "button", text: name });
      button.addEventListener("click", () => {
        this.down = this.by === k ? !this.down : typeof rows[0]?.[1][k] === "number";
        this.by = k;
        this.fill();
      });
      this.head.append(element("th", { scope: "col" }, button));
    });
    this.body = element("tbody");
    this.more = element("button", { type: "button", text: "more rows" });
    this.more.addEventListener("click", () => { this.most *= 10; this.fill(); });
    this.root = element("div", {}, element("p", {}, this.filter, " ", this.count),
      element("div", { class: "dp-scroll", tabindex: "0", role: "region", "aria-label": "Cases" },
        element("table", {}, element("thead", {}, this.head), this.body)), this.more);
    this.fill();
  }
  fill() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.rows.filter(([, cells]) => {
      const text = cells.join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const key = ([, cells]) => {
      const cell = cells[this.by];
      return typeof cell === "number" && this.absolute?.has(this.by) ? Math.abs(cell) : cell;
    };
    const empty = (value) => value === null || value === undefined || value === "";
    found.sort((a, b) => {
      const [one, other] = [key(a), key(b)];
      if (empty(one) || empty(other)) return empty(one) - empty(other); // they stay at the end
      const order = typeof one === "number" && typeof other === "number" ? one - other
        : String(one).localeCompare(String(other), "en", { numeric: true });
      return this.down ? -order : order;
    });
    [...this.head.children].forEach((cell, k) => cell.setAttribute("aria-sort",
      k !== this.by ? "none" : this.down ? "descending" : "ascending"));
    this.body.replaceChildren(...found.slice(0, this.most).map(([number, cells]) => {
      const row = element("tr", { "data-case": number });
      cells.forEach((cell, k) => {
        const text = typeof cell === "number" ? shownNumber(cell) : cell ?? "";
        const node = element("td", { class: typeof cell === "number" ? "dp-number" : "" });
        if (k === 0 && this.onPick) {
          const button = element("button", { type: "button", text });
          button.addEventListener("click", () => this.onPick(number));
          node.append(button);
        } else node.textContent = text;
        row.append(node);
      });
      return row;
    }));
    this.count.textContent = `${found.length} of ${this.rows.length}`;
    this.more.hidden = found.length <= this.most;
    this.mark(this.marked);
  }
  mark(number) {
    this.marked = number;
    for (const row of this.body.children) {
      row.setAttribute("aria-selected", String(Number(row.dataset.case) === number));
    }
  }
}

// ---- the explorer ----

class Explorer {
  constructor(host, data, cases) {
    this.data = data;
    this.cases = cases; // number of a case -> what showCase needs
    this.chosen = { readers: 0, structure: 0, value: 0, cases: 0, scale: 0, limits: 0 };
    this.selects = {};
    const bar = element("div", { class: "dp-bar" });
    for (const [name, choices] of Object.entries(data.controls)) {
      const select = element("select", { "data-control": name },
        ...choices.map((text, value) => element("option", { value, text })));
      select.addEventListener("change", () => {
        this.chosen[name] = Number(select.value);
        this.show(name);
      });
      this.selects[name] = select;
      bar.append(element("label", {}, element("span", { text: name }), select));
    }
    this.plots = element("div", { class: "dp-plots", tabindex: "0", role: "application" });
    this.agreement = new Plot(560, 400, 92);
    this.scatter = new Plot(420, 400, 14);
    this.plots.append(this.agreement.root, this.scatter.root);
    this.plots.addEventListener("keydown", (event) => this.key(event));
    this.plots.addEventListener("pointermove", (event) => {
      const number = event.target.dataset?.case;
      this.tip.textContent = number === undefined ? "" : this.words(Number(number));
    });
    this.tip = element("p", { class: "dp-tip", role: "status" });
    this.foot = element("p", { class: "dp-foot" });
    this.notes = element("ul", { class: "dp-notes" });
    this.paragraph = element("p", { class: "dp-words" });
    this.table = element("div", {});
    this.statistics = element("div", { class: "dp-scroll", tabindex: "0", role: "region",
      "aria-label": "Statistics" });
    this.picked = element("div", { class: "dp-case" });
    host.append(bar, this.plots, this.tip, this.foot, this.notes,
      element("h3", { text: "Cases, and what the bias would be without each" }), this.table, this.picked,
      element("h3", { text: "All statistics of this choice" }), this.statistics,
      element("h3", { text: "In words" }), this.paragraph);
    this.show(null, host);
  }
  key4(chosen) { return [chosen.readers, chosen.structure, chosen.value, chosen.cases].join("|"); }
  key6(chosen) { return `${this.key4(chosen)}|${chosen.scale}|${chosen.limits}`; }
  // What has no answer is not offered; a choice that another one has emptied gives way.
  settle(changed) {
    const { states, sets } = this.data;
    const { chosen } = this;
    if (!states[this.key6(chosen)] && sets[this.key4(chosen)]) {
      // The same pairs, shown in the way that is nearest to what was chosen.
      const ways = Object.keys(states).filter((key) => key.startsWith(`${this.key4(chosen)}|`))
        .map((key) => key.split("|").slice(4).map(Number));
      const kept = changed === "limits" ? 1 : 0;
      ways.sort((a, b) => ([chosen.scale, chosen.limits][kept] !== a[kept])
        - ([chosen.scale, chosen.limits][kept] !== b[kept]));
      [chosen.scale, chosen.limits] = ways[0];
    }
    if (!states[this.key6(chosen)]) {
      for (const name of ["limits", "scale", "cases", "value", "structure", "readers"]) {
        if (name === changed) continue;
        const before = chosen[name];
        const free = this.data.controls[name].findIndex((_, k) => {
          chosen[name] = k;
          return states[this.key6(chosen)];
        });
        chosen[name] = free >= 0 ? free : before;
        if (free >= 0) break;
      }
      if (!states[this.key6(chosen)]) {
        const key = Object.keys(states).find((one) => one.split("|")[
          Object.keys(chosen).indexOf(changed)] === String(chosen[changed]))
          ?? Object.keys(states)[0];
        Object.keys(chosen).forEach((name, k) => { chosen[name] = Number(key.split("|")[k]); });
      }
    }
    for (const [name, select] of Object.entries(this.selects)) {
      [...select.options].forEach((option, k) => {
        const other = { ...chosen, [name]: k };
        const shown = name !== "scale" ? states[this.key6(other)] // a scale brings limits of its own
          : this.data.controls.limits.some((_, limits) => states[this.key6({ ...other, limits })]);
        option.disabled = ["scale", "limits"].includes(name) ? !shown : !sets[this.key4(other)];
      });
      select.value = String(chosen[name]);
    }
  }
  show(changed, host) {
    if (!Object.keys(this.data.states).length) {
      host.replaceChildren(element("p", { text: "Nothing here can be compared: no choice of readers "
        + `and cases has three pairs. ${this.data.cases.length} cases are in the table.` }));
      return;
    }
    this.settle(changed);
    const state = this.data.states[this.key6(this.chosen)];
    const set = this.data.sets[this.key4(this.chosen)];
    this.set = set;
    const scale = this.data.controls.scale[this.chosen.scale];
    this.place = new Map(set.cases.map((number, k) => [number, k]));
    this.draw(state, set, scale);
    this.plots.setAttribute("aria-label", `${state.title.join(". ")}. ${set.title.join(". ")}. `
      + "Arrow keys go from case to case, Enter opens one.");
    this.foot.textContent = `filled: both above 0 · hollow: one is 0 · dotted: no difference, identity`
      + `${set.deming ? " · solid line on the right: Deming" : ""} · limits ${state.limits}; grey: their intervals`;
    this.notes.replaceChildren(...set.notes.map((text) => element("li", { text })));
    this.paragraph.textContent = set.text;
    this.list(set);
    const head = element("tr", {}, ...set.columns.map((text) => element("th", { scope: "col", text })));
    this.statistics.replaceChildren(element("table", {}, element("thead", {}, head),
      element("tbody", {}, ...state.table.map((cells) => element("tr", {},
        ...cells.map((text) => element("td", { text })))))));
    this.ring();
  }
  draw(state, set, scale) {
    const found = []; // case, mean, difference
    set.cases.forEach((number, k) => {
      const at = PLACES[scale](set.reference[k], set.test[k], set.difference[k]);
      if (at) found.push([number, ...at, this.look(set, k)]);
    });
    const [numbers, xs, ys, looks] = [0, 1, 2, 3].map((k) => found.map((one) => one[k]));
    const log = scale === "ratio";
    const lineYs = state.lines.flatMap((line) => line.y);
    const all = [...ys, ...lineYs, state.none];
    let y = reach(log ? all.filter((v) => v > 0).map(Math.log) : all, 0.08);
    if (log) y = y.map(Math.exp);
    const pick = (number) => this.pick(number);
    const left = this.agreement;
    left.axes({ x: reach([...xs, ...state.lines.flatMap((line) => line.x)], 0.05, true), y, log,
      labels: state.labels, title: state.title });
    for (const line of state.lines) if (line.band) left.band(line.band);
    left.level(state.none, "dp-dotted");
    for (const line of state.lines) {
      const kind = line.dashed ? "dp-dashed" : "dp-ink";
      if (line.x.length) {
        left.line(line.x, line.y, kind);
        if (line.name) left.name(left.across(line.x.at(-1)), line.y.at(-1), line.name);
      } else if (line.y[0] !== null) {
        left.level(line.y[0], kind);
        left.name(left.box.right, line.y[0], line.name);
      }
    }
    left.points(xs, ys, numbers, looks, pick);
    const right = this.scatter;
    const both = reach([...set.reference, ...set.test], 0.05, true);
    const unit = set.unit ? `, ${set.unit}` : "";
    right.axes({ x: both, y: both, labels: set.names.map((name) => name + unit), title: set.title });
    right.line(both, both, "dp-dotted");
    if (set.deming) {
      const ends = reach(set.reference, 0);
      right.line(ends, ends.map((x) => set.deming[0] + set.deming[1] * x), "dp-ink");
    }
    right.points(set.reference, set.test, set.cases, set.cases.map((_, k) => this.look(set, k)), pick);
    for (const root of [left.root, right.root]) {
      root.style.setProperty("--dp-colour", this.data.colours[set.structure]);
    }
    this.order = found.sort((a, b) => a[1] - b[1]).map(([number]) => number);
  }
  look(set, k) { return set.reference[k] === 0 || set.test[k] === 0 ? "dp-hollow" : "dp-point"; }
  words(number) {
    const { set } = this;
    const k = this.place.get(number);
    const { name, cohort } = this.data.cases[number];
    const [a, b] = set.names;
    return `${cohort} ${name}: ${a} ${shownNumber(set.reference[k])} ${set.unit}, ${b} `
      + `${shownNumber(set.test[k])} ${set.unit}; without it the bias would change by `
      + `${set.shift[k] === null ? "–" : shownNumber(set.shift[k])} ${set.unit}`;
  }
  list(set) {
    const facts = Object.keys(this.data.cases[0]).filter((name) => !["name", "cohort"].includes(name));
    const rows = set.cases.map((number, k) => {
      const one = this.data.cases[number];
      return [number, [one.name, set.reference[k], set.test[k], set.difference[k],
        set.shift[k], ...facts.map((name) => one[name]), this.cases.has(number) ? "here" : ""]];
    });
    const unit = set.unit ? `, ${set.unit}` : "";
    const table = new Table(["case", set.names[0] + unit, set.names[1] + unit, `difference${unit}`,
      `bias changes by${unit}`, ...facts, "CT"], rows, (number) => this.pick(number), [4, true]);
    table.absolute = new Set([3, 4]);
    table.fill();
    this.table.replaceChildren(table.root);
    this.list_ = table;
  }
  ring() {
    const number = this.number;
    for (const node of this.plots.querySelectorAll("circle")) {
      node.classList.toggle("dp-picked", Number(node.dataset.case) === number);
    }
    this.list_?.mark(number);
  }
  pick(number) {
    this.number = number;
    this.tip.textContent = this.words(number);
    this.ring();
    const { name, cohort } = this.data.cases[number];
    const { columns, rows } = this.data.readings;
    const head = element("tr", {}, ...columns.map((text) => element("th", { scope: "col", text })));
    const body = rows[number].map((cells) => element("tr", {}, ...cells.map((cell) =>
      element("td", { class: typeof cell === "number" ? "dp-number" : "",
        text: typeof cell === "number" ? shownNumber(cell) : cell ?? "–" }))));
    const place = element("div", {});
    this.picked.place?.close?.();
    this.picked.replaceChildren(element("h3", { text: `${cohort} ${name}` }), place,
      element("div", { class: "dp-scroll", tabindex: "0", role: "region", "aria-label": "Readings" },
        element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
    this.picked.place = place;
    const known = this.cases.get(number);
    if (known) showCase(place, known);
    else if (this.cases.size) {
      place.textContent = "Its CT is not in this page: it holds those marked “here”.";
    }
  }
  key(event) {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (step && this.order?.length) {
      const at = this.order.indexOf(this.at ?? -1);
      this.at = this.order[(at + step + this.order.length) % this.order.length];
      for (const node of this.plots.querySelectorAll("circle")) {
        node.classList.toggle("dp-at", Number(node.dataset.case) === this.at);
      }
      this.tip.textContent = this.words(this.at);
    } else if (event.key === "Enter" && this.place.has(this.at)) this.pick(this.at);
    else return;
    event.preventDefault();
  }
}

async function main() {
  const text = new TextDecoder().decode(await inflate("dp-data"));
  const { viewers, explorer } = JSON.parse(text);
  const places = document.getElementById("dp-viewers");
  const known = new Map();
  for (const one of viewers) {
    if (explorer && one.number !== null) known.set(one.number, one);
    else {
      const place = element("section", {});
      places.append(element("h2", { text: one.state.info.case_id }), place);
      await showCase(place, one);
    }
  }
  if (explorer) new Explorer(document.getElementById("dp-explorer"), explorer, known);
  document.body.dataset.ready = "yes";
}

main().catch((error) => {
  document.getElementById("dp-fault").textContent = `This page could not be shown: ${error}. It needs a `
    + "browser of 2023 or later with scripts; report.html beside it needs none.";
});
