// One task of a run, told in full.

import { WORDS } from "./actions.js";
import { h, replace } from "./dom.js";
import { bytes, clockTime, duration, fullTime, isEnded, plural, relativeTime, stateLabel, stateMark } from "./format.js";
import { createValue } from "./values.js";

/** The panel of a chosen task. `open` are the things that it can do: close(), logs(task), rerun(task) or null, output(task), keep. */
export class Panel {
  constructor(record, open) {
    this.record = record;
    this.open = open;
    this.task = null;
    this.element = h("aside", { class: "cf-panel", "aria-label": "Task", tabindex: "-1", hidden: true });
  }

  /** Show a task; null: none. */
  show(task) {
    this.task = task;
    this.element.hidden = task === null;
    this.key = null;
    if (task === null) return;
    this.values = h("div", { class: "cf-values" });
    this.facts = h("div");
    this.rerun = this.#button(WORDS.rerun_from, this.open.rerun);
    this.given = null;
    replace(
      this.element,
      h(
        "header",
        { class: "cf-panel-head" },
        h("h2", { title: task }, task),
        h("button", { type: "button", class: "cf-tool", "aria-label": "Close", title: "Close", onclick: () => this.open.close() }, "✕"),
      ),
      this.facts,
      h("div", { class: "cf-buttons" }, this.#button("Logs", this.open.logs), this.rerun),
      this.values,
    );
    this.update(Date.now());
  }

  #button(text, act) {
    return h("button", { type: "button", class: "cf-button", onclick: () => act(this.task) }, text);
  }

  /** Tell what the record holds now. */
  update(now) {
    if (this.task === null) return;
    const task = this.record.tasks.get(this.task);
    if (!task) return;
    const spans = this.record.of(this.task);
    const took = duration(this.record.took(task, now));
    const key = JSON.stringify([task, spans.length, took, this.record.run.state]);
    if (key === this.key) return;
    this.key = key;
    const part = this.record.graph.find((one) => one.task === this.task);
    replace(
      this.facts,
      h("p", { class: "cf-state", dataset: { state: task.state } }, h("span", { class: "cf-mark", "aria-hidden": "true" }, stateMark(task.state)), stateLabel(task.state), took ? h("span", { class: "cf-quiet" }, took) : null),
      part?.description ? h("p", { class: "cf-about" }, part.description) : null,
      task.error ? h("div", { class: "cf-callout", dataset: { tone: task.state === "failed" ? "failed" : "retrying" } }, h("strong", {}, task.error.kind ?? "error"), h("p", { class: "cf-message" }, task.error.message)) : null,
      facts([
        ["Why", task.reason],
        ["Stage", task.stage || (task.on_failure_of === undefined ? null : `after a failure of ${task.on_failure_of || "the flow"}`)],
        ["Kind", part?.type],
        ["Agent", task.agent],
        ["Items", task.items ? Object.entries(task.items).map(([state, count]) => `${count} ${stateLabel(state).toLowerCase()}`).join(", ") : null],
        ["Follows", part?.depends_on.length ? part.depends_on.map((name) => name.replace(/^stage:/, "all of ")).join(", ") : null],
        ["Started", task.started_at ? h("time", { datetime: task.started_at, title: fullTime(task.started_at) }, clockTime(task.started_at, now)) : null],
        ["Next attempt", ["retrying", "waiting"].includes(task.state) && task.next_attempt_at ? relativeTime(task.next_attempt_at, now) : null],
        ["Sub-flow", task.child_run_id],
        ["Output", task.taken_over ? "taken over from the run that this one repeats" : null],
      ]),
      attempts(spans, now),
    );
    this.rerun.hidden = !this.open.rerun || !isEnded(this.record.run.state) || task.on_failure_of !== undefined;
    if (task.state === "completed" && this.given !== this.task) {
      this.given = this.task;
      const name = this.task;
      replace(this.values, createValue("Output", () => this.open.output(name), { name, keep: this.open.keep, hint: bytes(task.output_bytes) }));
    }
  }
}

/** Names with what is told of them; those with nothing are left out. */
export function facts(rows) {
  return h(
    "dl",
    { class: "cf-facts" },
    rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

function attempts(spans, now) {
  const made = spans.filter((span) => span.state === "running" && span.attempt);
  if (made.length < 2) return null;
  return h(
    "section",
    {},
    h("h3", {}, plural(made.length, "attempt")),
    h(
      "ol",
      { class: "cf-attempts" },
      made.slice(-50).map((span) => {
        const state = span.to === null ? "running" : span.outcome === "running" ? "cancelled" : span.outcome;
        const word = state === "retrying" ? "Failed" : span.outcome === "running" ? "Interrupted" : stateLabel(state);
        const next = spans[spans.indexOf(span) + 1];
        const why = state === "retrying" ? next?.why : null;
        return h(
          "li",
          { dataset: { state: state === "retrying" ? "failed" : state } },
          h("span", { class: "cf-quiet" }, `#${span.attempt}`),
          h("span", { class: "cf-word" }, word),
          h("span", { class: "cf-quiet" }, duration(((span.to ?? now) - span.from) / 1000)),
          why ? h("span", { class: "cf-why" }, why) : null,
        );
      }),
    ),
  );
}
