// One run: the view that the MCP App shares, over the HTTP API.

import { createRunView } from "../run/runview.js";
import { failed } from "../ui/dialogs.js";
import { h, nothingThere, replace } from "../ui/elements.js";
import { remedies } from "../ui/remedies.js";
import { runAgain } from "../ui/run_form.js";

const GONE =
  "No run has this id. It may have been mistyped, or the run was pruned: ended runs are kept for a time only.";

export function open({ app, api, live, go, id, query, signal }) {
  const crumbs = h("nav", { class: "crumbs", "aria-label": "Breadcrumb" }, h("a", { href: "#/runs" }, "Runs"));
  const page = h("div", { class: "page" });
  let isCrumbed = false;
  let hasGraph = false; // it never changes
  const source = {
    async load(since) {
      const run = await api.run(id, { detail: hasGraph ? "tasks" : "graph", since });
      hasGraph = true;
      return { run };
    },
    events: async (since) => {
      const { events, more, reset } = await api.runEvents(id, { since, limit: 200 });
      return { events, more, reset, cursor: events.at(-1)?.cursor ?? since };
    },
    output: (task) => api.taskOutput(id, task),
    runOutput: () => api.runOutput(id),
    definition: () => api.run(id, { detail: "definition" }),
    explain: () => api.runExplanation(id),
    changes: (onChange, until) =>
      live.listen((news) => {
        if (news.type === "refetch" || (news.type === "change" && news.run_id === id)) onChange();
      }, until),
    act: (action, options = {}) => api.act(id, { action, ...options }),
  };
  const view = createRunView(source, {
    canAct: !app.isReadOnly,
    onError: failed,
    onRun: (run) => {
      document.title = `${run.name || run.flow_id} · Contexten Flow`;
      if (isCrumbed) return;
      isCrumbed = true;
      crumbs.append(h("a", { href: `#/flows/${encodeURIComponent(run.flow_id)}` }, run.flow_id));
    },
    onGone: () => replace(page, nothingThere("run", id, "runs", GONE)),
    ways,
    remedies: (calls, view, run) => remedies(calls, view, { canAct: !app.isReadOnly && !run.parent_run_id }),
    place: { tab: query.get("tab"), task: query.get("task") },
    onPlace: (place) => signal.aborted || go(`runs/${encodeURIComponent(id)}`, place, { replace: true }),
    onNewRun: (result) => go(`runs/${encodeURIComponent(result.run_id)}`),
  });
  signal.addEventListener("abort", () => view.destroy(), { once: true });
  page.append(crumbs, view.element);
  return { element: page, title: id };

  /** The way on from a run that ended: what failed as it would again is mended first. */
  function ways(run) {
    const { state, error } = run;
    const flow = encodeURIComponent(run.flow_id);
    const toFlow = ["Open flow", `#/flows/${flow}`, false];
    if (app.isReadOnly || run.parent_run_id) return [toFlow];
    if (state === "failed") return [["Edit flow", `#/create?flow=${flow}`, error?.kind === "invalid"]];
    return state === "completed" ? [["Run again", () => runAgain({ api, go }, run).catch(failed), true], toFlow] : [toFlow];
  }
}
