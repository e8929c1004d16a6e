// Lines of the journal: what tasks logged, and every event.

import { h, replace, say } from "./dom.js";
import { clockTime, fullTime, number, plural } from "./format.js";

const MOST = 1000; // lines on the page; the newest are kept

/** A list of entries of the journal that grows at its end. */
class Journal {
  constructor(record, { takes, line, label, none }) {
    Object.assign(this, { record, takes, line, none });
    this.read = 0;
    this.source = null;
    this.task = "";
    this.text = "";
    this.found = [];
    this.choice = h("select", { class: "cf-field", "aria-label": "Task", onchange: () => this.show(this.choice.value) }, h("option", { value: "" }, "All tasks"));
    this.offered = new Set();
    this.search = h("input", {
      class: "cf-field cf-grow",
      type: "search",
      placeholder: "Filter",
      "aria-label": `Filter ${label.toLowerCase()}`,
      oninput: () => {
        this.text = this.search.value.toLowerCase();
        this.#again();
      },
    });
    this.note = h("p", { class: "cf-quiet", role: "status" });
    this.lines = h("ol", { class: "cf-lines", tabindex: "0", "aria-label": label });
    this.element = h("div", { class: "cf-journal" }, h("div", { class: "cf-filters" }, this.choice, this.search), this.note, this.lines);
  }

  /** Show one task's lines; "": all. */
  show(task) {
    this.task = task;
    this.#offer(task);
    this.choice.value = task;
    this.#again();
  }

  /** Add what the record has heard since. */
  update() {
    const { events } = this.record;
    if (events !== this.source) {
      this.source = events;
      this.#again();
      return;
    }
    const isAtEnd = this.lines.scrollTop + this.lines.clientHeight >= this.lines.scrollHeight - 24;
    const fresh = [];
    for (; this.read < events.length; this.read += 1) {
      const event = events[this.read];
      if (!this.takes(event)) continue;
      if (event.task !== undefined) this.#offer(event.task);
      if (this.#fits(event)) fresh.push(event);
    }
    this.found.push(...fresh);
    for (const event of fresh.slice(-MOST)) this.lines.append(this.line(event));
    while (this.lines.childElementCount > MOST) this.lines.firstElementChild.remove();
    const count = this.found.length;
    say(this.note, count > MOST ? `The last ${number(MOST)} of ${plural(count, "line")}.` : count ? "" : this.none);
    if (isAtEnd) this.lines.scrollTop = this.lines.scrollHeight;
  }

  #fits(event) {
    if (this.task && event.task !== this.task) return false;
    return !this.text || JSON.stringify([event.type, event.task, event.details, event.actor]).toLowerCase().includes(this.text);
  }

  #offer(task) {
    if (task === "" || this.offered.has(task)) return;
    this.offered.add(task);
    this.choice.append(h("option", { value: task }, task));
  }

  #again() {
    this.read = 0;
    this.found = [];
    replace(this.lines);
    this.source = this.record.events;
    this.update();
  }
}

function time(event) {
  return h("time", { class: "cf-line-time", datetime: event.at, title: fullTime(event.at) }, clockTime(event.at));
}

function where(event) {
  const part = event.item === undefined ? "" : `[${event.item}]`;
  return event.task === undefined ? null : h("span", { class: "cf-line-task" }, `${event.task}${part}${event.attempt > 1 ? ` #${event.attempt}` : ""}`);
}

/** What tasks logged. */
export function createLogs(record) {
  return new Journal(record, {
    label: "Logs",
    none: "Nothing was logged.",
    takes: (event) => event.type === "task.log",
    line: (event) => {
      const { level, message } = event.details ?? {};
      return h("li", { dataset: { level: level ?? "info" } }, time(event), h("span", { class: "cf-line-level" }, level ?? "info"), where(event), h("span", { class: "cf-line-text" }, message ?? ""));
    },
  });
}

/** Every entry of the run's journal. */
export function createEvents(record) {
  return new Journal(record, {
    label: "Events",
    none: "No events yet.",
    takes: () => true,
    line: (event) => {
      const more = { ...event.details, ...(event.actor ? { by: event.actor } : {}) };
      const text = Object.entries(more).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
      return h("li", {}, time(event), h("span", { class: "cf-line-type", dataset: { state: event.type.split(".")[1] } }, event.type), where(event), h("span", { class: "cf-line-text" }, text.join("  ")));
    },
  });
}
