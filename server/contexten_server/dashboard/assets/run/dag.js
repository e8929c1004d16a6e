// The graph of a run: its tasks in layers, with their states.

import { h, replace, say } from "./dom.js";
import { duration, isActive, number, plural, stateLabel, stateMark } from "./format.js";
import { NODE, layOut } from "./layout.js";
import { isSpare } from "./record.js";

const MARGIN = 20;
const ZOOMS = [0.15, 0.25, 0.4, 0.6, 0.8, 1, 1.25];
const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/** The graph of a record; `select(task)` is called when a task is chosen. */
export class Dag {
  constructor(record, select) {
    this.record = record;
    this.select = select;
    this.nodes = new Map();
    this.edges = [];
    this.boxes = [];
    this.zoom = 1;
    this.chosen = null;
    this.canvas = h("div", { class: "cf-dag-canvas" });
    this.sizer = h("div", { class: "cf-dag-sizer" }, this.canvas);
    this.pane = h("div", { class: "cf-dag-pane", onkeydown: (event) => this.#step(event) }, this.sizer);
    const button = (label, text, act) => h("button", { type: "button", class: "cf-tool", "aria-label": label, title: label, onclick: act }, text);
    this.element = h(
      "div",
      { class: "cf-dag" },
      this.pane,
      h(
        "div",
        { class: "cf-dag-tools", role: "group", "aria-label": "Zoom" },
        button("Zoom out", "−", () => this.#zoomBy(-1)),
        button("Fit the graph", "⤢", () => this.fit()),
        button("Zoom in", "+", () => this.#zoomBy(1)),
      ),
    );
  }

  /** Draw what the record holds; places are kept while the graph is the same. */
  update(now) {
    if (this.drawn !== this.record.graph) this.#draw();
    for (const [name, node] of this.nodes) this.#show(name, node, now);
    for (const { name, tasks, label } of this.boxes) {
      const done = tasks.filter((task) => ["completed", "skipped"].includes(this.record.tasks.get(task)?.state)).length;
      say(label, [name, `${number(done)} of ${plural(tasks.length, "task")}`].filter(Boolean).join(" · "));
    }
    for (const { path, from, to } of this.edges) path.dataset.state = this.#edgeState(from, to);
  }

  /** Mark a task as chosen; null: none. */
  choose(task) {
    this.nodes.get(this.chosen)?.element.removeAttribute("aria-current");
    this.chosen = task;
    this.nodes.get(task)?.element.setAttribute("aria-current", "true");
    if (task === null || !this.nodes.has(task)) return;
    this.#enter(task, false);
    this.nodes.get(task).element.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Zoom so that the whole graph is seen, where it stays readable. */
  fit() {
    const { width, height } = this.layout;
    const room = { x: this.pane.clientWidth - 2 * MARGIN, y: this.pane.clientHeight - 2 * MARGIN };
    this.#setZoom(Math.min(1, Math.max(ZOOMS[0], Math.min(room.x / width, room.y / height))));
  }

  #draw() {
    const { graph } = this.record;
    this.drawn = graph;
    const room = Math.max(240, this.element.clientWidth - 2 * MARGIN);
    const across = layOut(graph, { room });
    const down = layOut(graph, { room, isDown: true });
    const overflow = ({ width }) => Math.max(0, width - room);
    this.layout = overflow(across) <= overflow(down) ? across : down;
    this.nodes.clear();
    const { nodes, edges, boxes, joints, width, height } = this.layout;
    this.edges = edges.map(({ from, to, points }) => ({ from, to, path: h("path", { class: "cf-edge", d: curve(points, this.layout.isDown) }) }));
    this.boxes = boxes.map(({ x, y, label, tasks }) => ({ name: label, tasks, label: h("text", { class: "cf-box-label", x: x + 13, y: y + 18 }) }));
    for (const [name, at] of nodes) this.nodes.set(name, this.#node(name, at));
    replace(
      this.canvas,
      h(
        "svg",
        { class: "cf-edges", width: width + 2 * MARGIN, height: height + 2 * MARGIN, viewBox: `${-MARGIN} ${-MARGIN} ${width + 2 * MARGIN} ${height + 2 * MARGIN}`, "aria-hidden": "true" },
        boxes.map((box) => h("rect", { class: "cf-box", x: box.x, y: box.y, width: box.width, height: box.height, rx: 10 })),
        this.edges.map(({ path }) => path),
        joints.map(({ x, y }) => h("circle", { class: "cf-joint", cx: x, cy: y, r: 3.5 })),
        this.boxes.map(({ label }) => label),
      ),
      [...this.nodes.values()].map(({ element }) => element),
    );
    const first = this.nodes.get(this.chosen) ? this.chosen : graph[0]?.task;
    if (first) this.nodes.get(first).element.tabIndex = 0;
    this.#setZoom(this.zoom);
    this.choose(this.chosen);
  }

  #node(name, { x, y }) {
    const mark = h("span", { class: "cf-mark", "aria-hidden": "true" });
    const word = h("span");
    const facts = h("span");
    const element = h(
      "button",
      {
        type: "button",
        class: "cf-node",
        tabindex: "-1",
        title: name,
        dataset: { task: name },
        style: { left: `${x + MARGIN}px`, top: `${y + MARGIN}px`, width: `${NODE.width}px`, height: `${NODE.height}px` },
        onclick: () => this.select(name),
        onfocus: () => this.#enter(name, false),
      },
      mark,
      h("span", { class: "cf-node-name" }, name),
      " ",
      h("span", { class: "cf-node-facts" }, word, " ", facts),
    );
    return { element, mark, word, facts, x, y };
  }

  #show(name, { element, mark, word, facts }, now) {
    const task = this.record.tasks.get(name);
    const took = this.record.took(task, now);
    const tries = task.attempts > 1 ? `${task.attempts} attempts` : "";
    const items = task.items ? `${task.items.completed ?? 0}/${Object.values(task.items).reduce((sum, count) => sum + count, 0)} items` : "";
    const time = took === undefined ? "" : duration(isActive(task.state) && took > 1 ? Math.floor(took) : took);
    const isToldByMark = time !== "" && ["completed", "running", "failed"].includes(task.state);
    if (element.dataset.state !== task.state) {
      element.dataset.state = task.state;
      say(mark, stateMark(task.state));
      say(word, isSpare(task) ? "Only after a failure" : stateLabel(task.state));
    }
    word.className = isToldByMark ? "cf-unseen" : "";
    const told = [time, items, tries].filter(Boolean).join(" · ");
    say(facts, told && !isToldByMark ? `· ${told}` : told);
  }

  #edgeState(from, to) {
    const state = (names, wanted) => names.some((name) => this.record.tasks.get(name)?.state === wanted);
    if (to.length && state(to, "running")) return "running";
    return from.length && from.every((name) => ["completed", "skipped"].includes(this.record.tasks.get(name)?.state)) ? "completed" : "pending";
  }

  /** Make a task the one that the keyboard is at. */
  #enter(name, moves) {
    for (const node of this.canvas.querySelectorAll('.cf-node[tabindex="0"]')) node.tabIndex = -1;
    const { element } = this.nodes.get(name);
    element.tabIndex = 0;
    if (moves) element.focus();
  }

  /** Arrow keys go to the nearest task in their direction. */
  #step(event) {
    const name = event.target.dataset?.task;
    const step = STEPS[event.key];
    if (!step || name === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const here = this.nodes.get(name);
    let nearest = null;
    let least = Infinity;
    for (const [other, { x, y }] of this.nodes) {
      const along = (x - here.x) * step[0] + (y - here.y) * step[1];
      const aside = Math.abs((x - here.x) * step[1]) + Math.abs((y - here.y) * step[0]);
      if (along > 0 && along + 2 * aside < least) [nearest, least] = [other, along + 2 * aside];
    }
    event.preventDefault();
    if (nearest !== null) this.#enter(nearest, true);
  }

  #zoomBy(steps) {
    const next = steps > 0 ? ZOOMS.find((zoom) => zoom > this.zoom + 0.01) : ZOOMS.findLast((zoom) => zoom < this.zoom - 0.01);
    if (next) this.#setZoom(next);
  }

  #setZoom(zoom) {
    this.zoom = zoom;
    const { width, height } = this.layout;
    this.canvas.style.setProperty("transform", zoom === 1 ? "none" : `scale(${zoom})`);
    this.sizer.style.setProperty("width", `${(width + 2 * MARGIN) * zoom}px`);
    this.sizer.style.setProperty("height", `${(height + 2 * MARGIN) * zoom}px`);
  }
}

/** A smooth line through points, level where it meets each. */
function curve(points, isDown) {
  let line = `M${points[0].x} ${points[0].y}`;
  for (let at = 1; at < points.length; at += 1) {
    const [a, b] = [points[at - 1], points[at]];
    if (isDown) line += ` C${a.x} ${(a.y + b.y) / 2} ${b.x} ${(a.y + b.y) / 2} ${b.x} ${b.y}`;
    else line += ` C${(a.x + b.x) / 2} ${a.y} ${(a.x + b.x) / 2} ${b.y} ${b.x} ${b.y}`;
  }
  return line;
}
