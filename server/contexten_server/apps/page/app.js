// The page of a run in a host: it shows the run that a tool's result is about, live, and acts on it.

import { h, replace } from "../../dashboard/assets/run/dom.js";
import { createRunView } from "../../dashboard/assets/run/runview.js";
import { Host, contentOf, textOf } from "./host.js";
import { createSource } from "./source.js";

const root = document.getElementById("app");
const isReadOnly = document.documentElement.dataset.readOnly === "true";
const sizeButton = h("button", { type: "button", class: "cf-tool", hidden: true, onclick: () => resize() });
let view = null;
let shown = null;

function note(title, ...lines) {
  leave();
  replace(root, h("div", { class: "app-note", role: "status" }, h("strong", {}, title), lines.filter(Boolean).map((line) => h("p", {}, line))));
}

function leave() {
  view?.destroy();
  view = null;
  shown = null;
}

/** Show a run as the tool told it, where the host passes no calls on. */
function still(run) {
  const graph = (run.tasks ?? []).map((task) => ({ task: task.name, stage: task.stage, type: "", depends_on: [] }));
  const why = "This host passes no calls on: this is the run as the tool told of it, and no more.";
  const refuse = () => Promise.reject(new Error(why));
  const source = {
    load: async () => ({ run: { ...run, graph: run.graph ?? graph, note: [run.note, why].filter(Boolean).join(" ") } }),
    events: async () => ({ events: run.events ?? [], more: false, cursor: run.cursor }),
    output: refuse,
    runOutput: async () => run.output ?? refuse(),
    changes: () => {},
    act: refuse,
  };
  open(run.run_id, source, { canAct: false });
}

function live(run) {
  const onRefused = () => (run.progress ? still(run) : note("The host refused to show the run", run.run_id));
  open(run.run_id, createSource(host, run.run_id, { onRefused }), { canAct: !isReadOnly });
}

function open(runId, source, options) {
  leave();
  shown = runId;
  view = createRunView(source, { ...options, keep: null, onNewRun: (result) => live({ run_id: result.run_id }) });
  replace(root, h("div", { class: "app-bar" }, sizeButton), view.element);
}

function show(run) {
  if (run.run_id === shown) view.refresh();
  else if (host.callsTools) live(run);
  else still(run);
}

const host = new Host({
  result(result) {
    const data = contentOf(result);
    const run = data?.latest_run ?? data;
    if (result?.isError) note("The call was refused", data?.error?.message ?? textOf(result).slice(0, 500)); // a failed run has an error too
    else if (run?.run_id) show(run);
    else if (data?.flow_id) note(data.name ?? data.flow_id, "This flow never ran.");
    else note("There is no run to show", textOf(result).slice(0, 500));
  },
  cancelled: (reason) => shown || note("The call was cancelled", reason),
  context({ theme, styles, displayMode = "inline", availableDisplayModes = [], containerDimensions }) {
    const page = document.documentElement;
    if (theme === "light" || theme === "dark") page.dataset.theme = theme;
    for (const [name, value] of Object.entries(styles?.variables ?? {})) {
      if (name.startsWith("--") && typeof value === "string") page.style.setProperty(name, value);
    }
    page.dataset.displayMode = displayMode;
    sizeButton.hidden = !availableDisplayModes.includes(other(displayMode));
    replace(sizeButton, displayMode === "inline" ? "⤢ Full screen" : "⤡ Back to the chat");
    page.style.setProperty("overflow-y", containerDimensions && "height" in containerDimensions ? "auto" : "");
  },
  teardown() {
    leave();
    host.close();
  },
});

function other(mode) {
  return mode === "inline" ? "fullscreen" : "inline";
}

/** Ask the host for the whole screen, or to be put back; it tells what came of it. */
async function resize() {
  try {
    const { mode } = await host.request("ui/request-display-mode", { mode: other(document.documentElement.dataset.displayMode) });
    host.on.context(Object.assign(host.context, { displayMode: mode }));
  } catch {
    sizeButton.hidden = true; // this host cannot after all
  }
}

let size = "";
const watch = new ResizeObserver(() => {
  const [width, height] = [Math.ceil(document.documentElement.clientWidth), Math.ceil(document.documentElement.getBoundingClientRect().height)];
  if (`${width} ${height}` === size) return;
  size = `${width} ${height}`;
  host.notify("ui/notifications/size-changed", { width, height });
});

note("Waiting for the tool's answer…");
host.connect("1").then(
  () => watch.observe(document.documentElement),
  (error) => note("The host did not answer", error.message),
);
