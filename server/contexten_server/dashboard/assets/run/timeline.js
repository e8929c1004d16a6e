// When each task ran: a bar for each attempt, thin ones for what it waited. Only the rows in sight are drawn.

import { h, replace } from "./dom.js";
import { clockTime, duration, instant, isActive, plural, stateLabel } from "./format.js";

const ROW = 30;
const SPARE = 6; // rows drawn beyond those in sight
const STEPS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
const WORDS = { running: "attempt", retrying: "wait before the next attempt", waiting: "waiting", scheduled: "queued", paused: "paused" };

/** The timeline of a record; `select(task)` is called when a task is chosen. */
export class Timeline {
  constructor(record, select) {
    this.record = record;
    this.select = select;
    this.chosen = null;
    this.entered = null; // the one row that Tab stops at; arrow keys go on from it
    this.axis = h("div", { class: "cf-axis", "aria-hidden": "true" });
    this.rows = h("div", { class: "cf-rows", role: "list", "aria-label": "Timeline of tasks" });
    this.pane = h("div", { class: "cf-time-pane", tabindex: "-1", onscroll: () => this.#drawRows() }, this.rows);
    this.element = h(
      "div",
      { class: "cf-time" },
      h("div", { class: "cf-time-head" }, h("span", { class: "cf-time-corner" }, "Task"), this.axis),
      this.pane,
      h(
        "p",
        { class: "cf-key" },
        ["running", "retrying", "waiting", "paused"].map((state) => h("span", {}, h("i", { class: "cf-bar", dataset: { state } }), WORDS[state])),
      ),
    );
  }

  /** Draw what the record holds. */
  update(now) {
    this.range = this.record.range(now);
    this.now = now;
    const order = (task) => instant(task.started_at) ?? instant(task.ended_at) ?? Infinity;
    const tasks = [...this.record.tasks.values()];
    const begun = new Map(tasks.map((task, index) => [task.name, [order(task), index]]));
    this.list = [null, ...tasks.sort((a, b) => compare(begun.get(a.name), begun.get(b.name)))];
    this.rows.style.setProperty("height", `${this.list.length * ROW}px`);
    this.#drawAxis();
    this.#drawRows();
  }

  /** Mark a task as chosen; null: none. */
  choose(task) {
    this.chosen = task;
    if (this.list) this.#drawRows();
  }

  #drawAxis() {
    const length = (this.range.to - this.range.from) / 1000;
    const most = Math.max(2, Math.floor((this.axis.clientWidth || 600) / 90));
    const step = STEPS_S.find((size) => length / size <= most) ?? length / most;
    const ticks = [];
    for (let at = 0; at <= length * 0.93; at += step) ticks.push(at);
    const key = `${step}|${ticks.length}|${length}`;
    if (this.axisKey === key) return;
    this.axisKey = key;
    replace(
      this.axis,
      ticks.map((at) => h("span", { class: "cf-tick", style: { left: `${(at / length) * 100}%` } }, at === 0 ? clockTime(new Date(this.range.from).toISOString(), this.now) : `+${duration(at)}`)),
    );
  }

  #drawRows() {
    if (!this.list) return;
    const first = Math.max(0, Math.floor(this.pane.scrollTop / ROW) - SPARE);
    const last = Math.min(this.list.length, Math.ceil((this.pane.scrollTop + (this.pane.clientHeight || 400)) / ROW) + SPARE);
    const focused = this.rows.contains(document.activeElement) ? document.activeElement.dataset.task : undefined;
    const drawn = [];
    for (let at = first; at < last; at += 1) drawn.push(this.#row(this.list[at], at));
    replace(this.rows, drawn);
    (this.#button(this.entered) ?? this.rows.querySelector("button"))?.setAttribute("tabindex", "0");
    if (focused !== undefined) this.#button(focused)?.focus({ preventScroll: true });
  }

  #row(task, at) {
    const name = task?.name ?? null;
    const spans = task ? this.record.of(name) : this.record.course.list;
    const bars = spans.map((span) => this.#bar(span, task));
    if (task && !spans.length && task.taken_over) bars.push(h("span", { class: "cf-bar-note" }, "output taken over"));
    else if (task && !spans.length && task.reason) bars.push(h("span", { class: "cf-bar-note" }, task.reason));
    const told = task
      ? [stateLabel(task.state), task.attempts ? plural(task.attempts, "attempt") : "", duration(this.record.took(task, this.now))]
      : [stateLabel(this.record.run?.state), duration(this.record.elapsed(this.now))];
    return h(
      "div",
      { class: "cf-row", role: "listitem", "aria-setsize": this.list.length, "aria-posinset": at + 1, dataset: { state: task ? task.state : "run" }, style: { top: `${at * ROW}px` } },
      h(
        task ? "button" : "span",
        {
          class: "cf-row-name",
          type: task ? "button" : null,
          tabindex: task ? "-1" : null,
          title: task ? name : "the run",
          dataset: task ? { task: name } : {},
          "aria-label": `${task ? name : "The run"}: ${told.filter(Boolean).join(", ")}`,
          "aria-current": name !== null && name === this.chosen ? "true" : null,
          onclick: task ? () => this.select(name) : null,
          onfocus: task ? () => this.#enter(name) : null,
          onkeydown: task ? (event) => this.#step(event, at) : null,
        },
        task ? name : "Run",
      ),
      h("span", { class: "cf-track", onclick: task ? () => this.select(name) : null }, bars),
    );
  }

  #bar(span, task) {
    const length = this.range.to - this.range.from;
    const to = span.to ?? Math.max(this.now, span.from);
    const from = Math.min(100, Math.max(0, ((span.from - this.range.from) / length) * 100));
    const outcome = span.state === "running" && task ? (span.to === null ? (isActive(task.state) ? "running" : task.state) : span.outcome) : span.state;
    const what = WORDS[span.state] ?? span.state;
    const number = span.attempt && span.state === "running" ? ` ${span.attempt}` : "";
    return h("span", {
      class: "cf-bar",
      dataset: { state: span.state, outcome, live: String(span.to === null) },
      style: { left: `${from}%`, width: `${Math.max(0, Math.min(100 - from, ((to - span.from) / length) * 100))}%` },
      title: `${what}${number}: ${duration((to - span.from) / 1000)}${span.to === null ? " so far" : `, then ${stateLabel(span.outcome).toLowerCase()}`}`,
    });
  }

  #button(task) {
    return task === null ? null : this.rows.querySelector(`[data-task="${CSS.escape(task)}"]`);
  }

  /** Make a task's row the one that the keyboard is at. */
  #enter(task) {
    this.entered = task;
    for (const button of this.rows.querySelectorAll('[tabindex="0"]')) button.tabIndex = -1;
    this.#button(task).tabIndex = 0;
  }

  /** Up and down go from task to task, past those in sight. */
  #step(event, at) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !this.list[at + step]) return;
    event.preventDefault();
    const top = (at + step) * ROW;
    if (top < this.pane.scrollTop) this.pane.scrollTop = top;
    else if (top + ROW > this.pane.scrollTop + this.pane.clientHeight) this.pane.scrollTop = top + ROW - this.pane.clientHeight;
    this.#drawRows();
    this.rows.querySelector(`[data-task="${CSS.escape(this.list[at + step].name)}"]`)?.focus({ preventScroll: true });
  }
}

function compare([one, index], [other, place]) {
  return one === other ? index - place : one - other;
}
