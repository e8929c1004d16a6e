// The view of one run, shared by the dashboard's run page and the MCP App.

import { WORDS, actionsFor, createQuestions } from "./actions.js";
import { Dag } from "./dag.js";
import { download, h, replace, say } from "./dom.js";
import { asCalls, createFailure } from "./failure.js";
import { clockTime, duration, fullTime, isActive, isEnded, plural, relativeTime, stateLabel, stateMark } from "./format.js";
import { createEvents, createLogs } from "./logs.js";
import { Panel, facts } from "./panel.js";
import { RunRecord, isSpare } from "./record.js";
import { Timeline } from "./timeline.js";
import { createValue } from "./values.js";

const LEAST_MS = 250; // between two refreshes
const MOST_FAILURES = 4; // then a change, or the person, must ask
const MANY = 200; // from so many tasks on, those that changed are read
const TICK_MS = 1000; // while the run is under way, so that times grow

/**
 * `source` reads and acts:
 *   load(since) -> {run}             the run with its graph and tasks; after the first time without the graph, and of a
 *                                    large one only with the tasks that changed since a cursor
 *   events(since) -> {events, more, cursor, reset}   the journal after a cursor; null: from its beginning
 *   output(task), runOutput()        JSON values, whole
 *   changes(onChange, signal)        calls onChange after each change of this run, until the signal
 *   act(action, {task, reason})      -> ControlResult
 *   definition() -> {definition, inputs}, explain() -> Explanation      optional
 * `canAct` shows the actions, `onError(error)` hears of one that was refused (without it the view tells), `onRun(run)` of
 * each state that was read, `onGone(error)` that there is no such run (any more), `onNewRun(result)` of a retry or rerun,
 * `keep(name, text)` keeps a value as a file (null: not here). `ways(run)` are ways on from an ended run, as [word, an
 * address or what to call, whether it is the main one]. `remedies(calls, view, run)` tells what may mend a failed run, a
 * list of children for each way; without it these are the calls themselves. `place` is what to begin with, {tab, task},
 * and `onPlace(place)` hears of another one: null stands for the first tab, and for no task.
 */
export function createRunView(source, { canAct = true, onError = null, onRun = () => {}, onGone = null, onNewRun = null, keep = download, ways = () => [], remedies = asCalls, place = {}, onPlace = () => {} } = {}) {
  const view = new RunView(source, { canAct, onError, onRun, onGone, onNewRun, keep, ways, remedies, place, onPlace });
  return { element: view.element, refresh: () => view.refresh(), destroy: () => view.destroy(), select: (task) => view.select(task) };
}

const TABS = [
  ["graph", "Graph"],
  ["timeline", "Timeline"],
  ["logs", "Logs"],
  ["events", "Events"],
  ["data", "Data"],
];
const ISO = /\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)/g;
const METER = ["completed", "skipped", "running", "retrying", "waiting", "failed", "cancelled"];
let made = 0; // views on this page, so that their ids differ

class RunView {
  constructor(source, options) {
    this.source = source;
    this.options = options;
    this.record = new RunRecord();
    this.stop = new AbortController();
    this.chosen = options.place.task ?? null; // shown when it is known
    this.questions = createQuestions();
    const select = (task) => this.select(task);
    this.parts = {
      graph: new Dag(this.record, select),
      timeline: new Timeline(this.record, select),
      logs: createLogs(this.record),
      events: createEvents(this.record),
      data: { element: h("div", { class: "cf-data" }), update: () => this.#showData() },
    };
    this.panel = new Panel(this.record, {
      close: () => this.select(null),
      logs: (task) => {
        this.parts.logs.show(task);
        this.show("logs");
      },
      rerun: options.canAct ? (task) => this.act("rerun_from", { task }) : null,
      output: (task) => source.output(task),
      keep: options.keep,
    });
    this.#build();
    this.clock = setInterval(() => this.#tick(), TICK_MS);
    this.resized = new ResizeObserver(() => this.record.run && this.shown !== "graph" && this.parts[this.shown].update(Date.now()));
    this.resized.observe(this.element);
    source.changes(() => this.refresh(), this.stop.signal);
    this.refresh();
  }

  destroy() {
    this.stop.abort();
    clearInterval(this.clock);
    this.resized.disconnect();
  }

  /** Read anew, at most once in LEAST_MS; whatever is asked meanwhile is once more. */
  refresh() {
    this.isWanted = true;
    this.reading ??= this.#read();
    return this.reading;
  }

  /** Choose a task; null: none. */
  select(task) {
    const from = this.chosen;
    this.#choose(task);
    this.#tellPlace();
    if (task !== null) this.panel.element.focus({ preventScroll: true });
    else if (from) this.body.querySelector(`[data-task="${CSS.escape(from)}"]`)?.focus({ preventScroll: true });
  }

  /** Show one of the tabs. */
  show(name) {
    this.#turnTo(name);
    this.#tellPlace();
  }

  /** Show what happened to one task. */
  showEvents(task) {
    this.parts.events.show(task);
    this.show("events");
  }

  #choose(task) {
    this.chosen = task;
    this.parts.graph.choose(task);
    this.parts.timeline.choose(task);
    this.panel.show(task);
    this.element.dataset.panel = String(task !== null);
  }

  #tellPlace() {
    this.options.onPlace({ tab: this.shown === TABS[0][0] ? null : this.shown, task: this.chosen });
  }

  #turnTo(name) {
    this.shown = name;
    for (const [other] of TABS) {
      this.tabs[other].setAttribute("aria-selected", String(other === name));
      this.tabs[other].tabIndex = other === name ? 0 : -1;
    }
    this.body.setAttribute("aria-labelledby", this.tabs[name].id);
    replace(this.body, this.parts[name].element);
    if (this.record.run) this.parts[name].update(Date.now());
  }

  /** Do something to the run, having asked the person where it cannot be taken back. */
  async act(action, options = {}) {
    const answer = await this.questions.ask(action, options);
    if (answer === null) return;
    try {
      const result = await this.source.act(action, { ...options, ...answer });
      if (result?.run_id && result.run_id !== this.record.run.run_id) this.options.onNewRun?.(result);
    } catch (error) {
      if (this.options.onError) this.options.onError(error);
      else this.#tell(`The ${WORDS[action].toLowerCase()} was refused: ${error.message}`);
      return;
    }
    this.refresh();
  }

  #build() {
    const id = `cf-run-${(made += 1)}`;
    this.tabs = {};
    for (const [name, label] of TABS) {
      this.tabs[name] = h("button", { type: "button", role: "tab", class: "cf-tab", id: `${id}-${name}`, "aria-controls": `${id}-body`, onclick: () => this.show(name), onkeydown: (event) => this.#stepTab(event) }, label);
    }
    this.state = h("p", { class: "cf-state" });
    this.name = h("h1", { class: "cf-name" });
    this.buttons = h("div", { class: "cf-buttons" });
    this.meter = h("div", { class: "cf-meter", role: "progressbar", "aria-label": "Tasks done" });
    this.about = h("p", { class: "cf-meta" });
    this.notices = h("div", { class: "cf-notices" });
    this.trouble = h("div", { role: "alert" });
    this.body = h("div", { class: "cf-body", role: "tabpanel", id: `${id}-body` });
    this.element = h(
      "section",
      { class: "cf-run", "aria-label": "Run", "aria-busy": "true", onkeydown: (event) => this.#escape(event) },
      h("header", { class: "cf-head" }, h("div", { class: "cf-title" }, this.state, this.name), this.buttons, this.about, this.meter),
      this.trouble,
      this.notices,
      h("div", { class: "cf-tabs", role: "tablist", "aria-label": "Views of the run" }, Object.values(this.tabs)),
      h("div", { class: "cf-main" }, this.body, this.panel.element),
      this.questions.element,
      h("p", { class: "cf-loading", role: "status" }, "Loading…"),
    );
    const { tab, task } = this.options.place;
    this.#turnTo(TABS.some(([name]) => name === tab) ? tab : TABS[0][0]);
    if (task && ["logs", "events"].includes(this.shown)) this.parts[this.shown].show(task);
  }

  async #read() {
    let failures = 0;
    while (this.isWanted && !this.stop.signal.aborted) {
      this.isWanted = false;
      try {
        await this.#readOnce();
        failures = 0;
        replace(this.trouble);
      } catch (error) {
        if (this.stop.signal.aborted) return;
        if (error.code === "run_not_found" && this.options.onGone) {
          this.destroy();
          this.options.onGone(error);
          return;
        }
        failures += 1;
        this.isWanted = failures < MOST_FAILURES;
        this.#tell(`The run could not be read: ${error.message}`);
      }
      await new Promise((resolve) => setTimeout(resolve, LEAST_MS * 4 ** failures));
    }
    this.reading = null; // in the same breath: what is asked from now on begins anew
  }

  #tell(text) {
    replace(this.trouble, h("p", { class: "cf-callout", dataset: { tone: "retrying" } }, text));
  }

  /** Events before tasks: what was loaded is then never older than what was heard. The first time tasks are shown at
   * once, and read again when the events are there. */
  async #readOnce() {
    const isFirst = this.record.run === null;
    if (isFirst) this.#take((await this.source.load(null)).run);
    for (let more = true; more && !this.stop.signal.aborted; ) {
      const page = await this.source.events(this.record.cursor);
      if (page.reset) this.record.forget();
      this.record.hear(page.events);
      more = Boolean(page.more) && page.cursor !== this.record.cursor;
      this.record.cursor = page.cursor ?? this.record.cursor;
    }
    if (this.stop.signal.aborted) return;
    const isLarge = this.record.tasks.size > MANY;
    this.#take((await this.source.load(isLarge ? this.record.run.cursor : null)).run);
  }

  #take(run) {
    const isFirst = this.record.run === null;
    this.record.take(run);
    if (isFirst) this.#begin();
    this.element.setAttribute("aria-busy", "false");
    this.#update();
    this.options.onRun(run);
  }

  /** Show the task to begin with; an address may name one that is not there. */
  #begin() {
    this.#choose(this.record.tasks.has(this.chosen) ? this.chosen : null);
    this.#tellPlace();
  }

  #tick() {
    if (this.record.run && !isEnded(this.record.run.state) && document.visibilityState === "visible") this.#update();
  }

  #update() {
    const now = Date.now();
    this.#showHead(now);
    this.parts[this.shown].update(now);
    this.panel.update(now);
  }

  #showHead(now) {
    const { run, tasks } = this.record;
    const { state } = this.record;
    if (this.state.dataset.state !== state) {
      this.state.dataset.state = state;
      replace(this.state, h("span", { class: "cf-mark", "aria-hidden": "true" }, stateMark(state)), stateLabel(state));
      this.#explain();
    }
    say(this.name, run.name);
    const took = this.record.elapsed(now);
    const told = [
      `${run.progress.completed} of ${plural(run.progress.total, "task")}`,
      took === undefined ? `queued ${relativeTime(run.created_at, now)}` : duration(isActive(run.state) && took > 1 ? Math.floor(took) : took),
      run.started_at ? `started ${clockTime(run.started_at, now)}` : "",
      run.framework && run.framework !== "native" ? run.framework : "",
      `v${run.version}`,
      run.run_id,
    ];
    say(this.about, told.filter(Boolean).join("  ·  "));
    this.about.title = fullTime(run.started_at ?? run.created_at);
    this.#showMeter(run, tasks);
    this.#showButtons(run);
    this.#showNotices(run, now);
  }

  #showMeter(run, tasks) {
    const counts = new Map();
    const all = [...tasks.values()].filter((task) => !isSpare(task));
    for (const { state } of all) counts.set(state, (counts.get(state) ?? 0) + 1);
    const parts = METER.filter((state) => counts.has(state)).map((state) => [state, counts.get(state)]);
    const left = all.length - parts.reduce((sum, [, count]) => sum + count, 0);
    const key = JSON.stringify([parts, left]);
    if (this.meterKey === key) return;
    this.meterKey = key;
    this.meter.setAttribute("aria-valuemax", run.progress.total);
    this.meter.setAttribute("aria-valuenow", run.progress.completed);
    this.meter.setAttribute("aria-valuetext", parts.map(([state, count]) => `${count} ${stateLabel(state).toLowerCase()}`).join(", ") || "nothing begun");
    replace(this.meter, parts.map(([state, count]) => h("i", { dataset: { state }, title: `${count} ${stateLabel(state).toLowerCase()}`, style: { flex: `${count} 0 0` } })), left > 0 ? h("i", { style: { flex: `${left} 0 0` } }) : null);
  }

  #showButtons(run) {
    const { state } = this.record;
    if (this.buttonsKey === state) return;
    this.buttonsKey = state;
    const ways = isEnded(state) ? this.options.ways(run) : [];
    const actions = this.options.canAct ? actionsFor(run, state) : [];
    const hasMain = ways.some(([, , isMain]) => isMain);
    const offered = [
      ...actions.map(([action, word]) => [word, () => this.act(action), !hasMain && ["retry", "resume"].includes(action)]),
      ...ways,
    ];
    const button = ([word, way, isMain]) => {
      const look = isMain ? "cf-button cf-primary" : "cf-button";
      return typeof way === "string" ? h("a", { class: look, href: way }, word) : h("button", { type: "button", class: look, onclick: way }, word);
    };
    const hadFocus = this.buttons.contains(document.activeElement);
    replace(this.buttons, offered.sort((one, other) => Number(other[2]) - Number(one[2])).map(button));
    if (hadFocus) this.buttons.firstElementChild?.focus();
  }

  #showNotices(run, now) {
    const failed = [...this.record.tasks.values()].filter((task) => task.state === "failed").map((task) => task.name);
    const tolerated = run.state === "completed" ? failed : [];
    const lines = [
      run.note,
      run.reason ? `Why: ${run.reason}` : null,
      run.held_by ? `Held by ${run.held_by}.` : null,
      run.deadline?.missed ? "Its deadline was missed." : run.deadline?.at_risk ? `Its deadline, ${clockTime(run.deadline.at, now)}, will probably be missed.` : null,
      run.parent_run_id ? `Part of ${run.parent_run_id}; cancel, pause and retry that one.` : null,
      run.rerun_of ? `Repeats ${run.rerun_of}.` : null,
      ...(this.explained.waiting_for ?? []).map((line) => line.replace(ISO, (at) => clockTime(at))),
      tolerated.length ? `Failed, and tolerated: ${tolerated.join(", ")}.` : null,
    ].filter(Boolean);
    const key = JSON.stringify([lines, run.error, this.explained]);
    if (this.noticesKey === key) return;
    this.noticesKey = key;
    replace(this.notices, run.error ? this.#failure(run) : null, lines.length ? h("ul", { class: "cf-lines-plain" }, lines.map((line) => h("li", {}, line))) : null);
  }

  #failure(run) {
    const { summary = run.error.message, next = [] } = this.explained;
    return createFailure(run.error, summary, this.options.remedies(next, this, run), (task) => this.select(task));
  }

  /** Ask why a run that does not move does not, or why it failed and what to do. */
  async #explain() {
    this.explained = {};
    const { state } = this.record.run;
    if (!this.source.explain || !["scheduled", "waiting", "failed"].includes(state)) return;
    try {
      const explained = await this.source.explain();
      if (this.record.run.state !== state) return;
      this.explained = explained;
      this.#showNotices(this.record.run, Date.now());
    } catch {
      // the state is told; why is not known
    }
  }

  #showData() {
    const { run } = this.record;
    if (this.dataOf === run.state) return; // what is open stays open
    this.dataOf = run.state;
    const { keep } = this.options;
    const definition = () => (this.defined ??= this.source.definition());
    replace(
      this.parts.data.element,
      this.source.definition ? createValue("Inputs", async () => (await definition()).inputs ?? {}, { name: `${run.run_id}-inputs`, keep }) : null,
      run.state === "completed" ? createValue("Output", () => this.source.runOutput(), { name: `${run.run_id}-output`, keep }) : null,
      this.source.definition ? createValue("Definition", async () => (await definition()).definition, { name: `${run.flow_id}-v${run.version}`, keep }) : null,
      facts([
        ["Run", run.run_id],
        ["Flow", `${run.flow_id}, version ${run.version}`],
        ["Engine", [run.framework, run.work_pool].filter(Boolean).join(", ")],
        ["Priority", run.priority === undefined ? null : String(run.priority)],
        ["Created", fullTime(run.created_at)],
        ["Started", fullTime(run.started_at)],
        ["Ended", fullTime(run.ended_at)],
        ["Deadline", run.deadline ? `${fullTime(run.deadline.at)}, then ${run.deadline.on_deadline}` : null],
        ["Depends on", run.dependencies?.map((one) => `${one.id} (${one.state})`).join(", ")],
        ["Models", run.usage?.map((one) => `${one.model}: ${plural(one.calls, "call")}, ${one.input_tokens} + ${one.output_tokens} tokens`).join("; ")],
        ["Repeats", run.rerun_of],
      ]),
    );
  }

  #stepTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = TABS.findIndex(([name]) => name === this.shown);
    const [next] = TABS[(at + step + TABS.length) % TABS.length];
    this.show(next);
    this.tabs[next].focus();
  }

  #escape(event) {
    if (event.key === "Escape" && this.chosen && !this.questions.element.open) {
      event.stopPropagation();
      this.select(null);
    }
  }
}
