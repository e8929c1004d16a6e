// What is known of a run: its view, its tasks, its journal, and what the journal says of times.

import { instant, isEnded } from "./format.js";

const TASK_STATES = new Set(["running", "retrying", "waiting", "completed", "failed", "skipped", "cancelled"]);
const TASK_ENDS = new Set(["completed", "failed", "skipped", "cancelled"]);
const REQUESTS = { "run.pause_requested": "pausing", "run.pause_withdrawn": null, "run.cancel_requested": "cancelling" };
const RUN_STATES = new Set(["scheduled", "running", "waiting", "paused", "completed", "failed", "cancelled"]);

/** The state that an entry of the journal says was entered, of a run or of a task (not of one of its items). */
function stateOf(event) {
  const [kind, state] = event.type.split(".");
  if (kind === "run") return RUN_STATES.has(state) ? state : null;
  return event.item === undefined && TASK_STATES.has(state) ? state : null;
}

/** Stretches of time in one state, one after another. */
class Spans {
  constructor() {
    this.list = [];
  }

  /** Enter a state; null: none follows. */
  enter(state, at, more = {}) {
    const last = this.list.at(-1);
    if (last && last.to === null) Object.assign(last, { to: at, outcome: more.outcome ?? state });
    if (state !== null) this.list.push({ state, from: at, to: null, ...more });
  }
}

/** A run as it becomes known: `take` what was loaded, then `hear` the entries of the journal in their order. */
export class RunRecord {
  constructor() {
    this.run = null;
    this.graph = [];
    this.tasks = new Map();
    this.forget();
  }

  /** Forget the journal, where it was answered from its beginning again. */
  forget() {
    this.events = [];
    this.cursor = null;
    this.asked = null;
    this.course = new Spans();
    this.spans = new Map();
  }

  /** Take what was loaded: the whole, or only what changed. */
  take(run) {
    this.run = { ...run, tasks: undefined, graph: undefined };
    if (run.graph) this.graph = run.graph;
    for (const part of this.graph) if (!this.tasks.has(part.task)) this.tasks.set(part.task, blank(part.task, part.stage));
    for (const task of run.tasks ?? []) this.tasks.set(task.name, { ...task });
  }

  /** Take entries of the journal that follow those before. */
  hear(events) {
    for (const event of events) {
      this.events.push(event);
      if (event.type in REQUESTS) this.asked = REQUESTS[event.type];
      const state = stateOf(event);
      if (state === null) continue;
      const at = instant(event.at);
      if (event.task === undefined && state !== "running") this.asked = null; // it was obeyed
      if (event.task === undefined) this.course.enter(isEnded(state) ? null : state, at, { outcome: state });
      else this.#follow(event, state, at);
    }
  }

  #follow(event, state, at) {
    if (!this.tasks.has(event.task)) this.tasks.set(event.task, blank(event.task, ""));
    const task = this.tasks.get(event.task);
    const details = event.details ?? {};
    if (!this.spans.has(event.task)) this.spans.set(event.task, new Spans());
    const spans = this.spans.get(event.task);
    const isEnd = TASK_ENDS.has(state);
    spans.enter(isEnd ? null : state, at, { attempt: event.attempt, outcome: state, why: details.message ?? details.reason });
    if (task.state !== state) delete task.reason;
    task.state = state;
    task.attempts = Math.max(task.attempts ?? 0, event.attempt ?? 0);
    if (!isEnd && state !== "retrying") task.started_at ??= event.at;
    if (details.message) task.error = { kind: details.kind, message: details.message, attempt: event.attempt };
    else if (state === "completed") delete task.error;
    if (isEnd) {
      task.ended_at = event.at;
      if (task.started_at) task.duration_s = Math.max(0, (at - instant(task.started_at)) / 1000);
      if (state === "skipped" || state === "cancelled") task.reason = details.reason ?? task.reason;
    }
  }

  /** The run's state; `pausing` or `cancelling` while it runs on although it was asked to stop. */
  get state() {
    return (this.run.state === "running" && this.asked) || this.run.state;
  }

  /** The stretches of a task's time. */
  of(task) {
    return this.spans.get(task)?.list ?? [];
  }

  /** From when to when the run is told, in milliseconds: what lasts is told up to now. */
  range(now) {
    const from = instant(this.run?.created_at) ?? instant(this.events[0]?.at) ?? now;
    const to = isEnded(this.run?.state) ? (instant(this.run.ended_at) ?? instant(this.events.at(-1)?.at) ?? now) : now;
    return { from, to: Math.max(to, from + 1) };
  }

  /** How long a task has taken so far, in seconds; undefined where it has not begun. */
  took(task, now) {
    if (task.duration_s !== undefined || !task.started_at) return task.duration_s;
    return Math.max(0, (now - instant(task.started_at)) / 1000);
  }

  /** How long the run has taken since it first started, in seconds. */
  elapsed(now) {
    const { run } = this;
    if (!run?.started_at) return undefined;
    return isEnded(run.state) ? run.duration_s : Math.max(0, (now - instant(run.started_at)) / 1000);
  }
}

/** Whether a task runs after a failure only, and has not begun. */
export function isSpare(task) {
  return task.on_failure_of !== undefined && task.state === "pending";
}

function blank(name, stage) {
  return { name, stage, state: "pending", attempts: 0 };
}
