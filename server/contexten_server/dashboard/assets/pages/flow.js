// One flow: what it will do, its definition in each version, and its latest runs.

import { duration, plural } from "../run/format.js";
import { failed } from "../ui/dialogs.js";
import {
  badge,
  button,
  card,
  code,
  copyable,
  facts,
  h,
  icon,
  pageHead,
  problem,
  replace,
  select,
} from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago, lasting } from "../ui/times.js";
import { runFlow } from "../ui/run_form.js";

const REFRESH_MS = 700;

export function open({ app, api, live, go, id, query, signal }) {
  const page = h("div", { class: "page" });
  const runs = h("div", { class: "stack" });
  const plan = h("div", { class: "stack" });
  const definition = h("div", {});

  const load = latest(page, {
    ask: () => api.flow(id, query.get("version")),
    show,
    refuse: (error) => replace(page, pageHead(id, { crumbs: [["Flows", "#/flows"]] }), problem(error)),
    signal,
  });
  const loadRuns = latest(runs, { ask: () => api.runs({ flow_id: id, limit: 8 }), show: showRuns, signal });
  const loadPlan = latest(plan, { ask: () => api.flowExplanation(id), show: showPlan, signal });

  function show(flow) {
    document.title = `${flow.name} · Contexten Flow`;
    const actions = app.isReadOnly
      ? []
      : [
          h(
            "a",
            { class: "button", href: `#/create?flow=${encodeURIComponent(id)}` },
            icon("edit"),
            h("span", {}, "Edit"),
          ),
          h(
            "a",
            { class: "button", href: `#/triggers?create=${encodeURIComponent(id)}` },
            icon("triggers"),
            h("span", {}, "Add a trigger"),
          ),
          button("Run", () => runFlow({ api, go, flow_id: id }).catch(failed), { kind: "primary", symbol: "play" }),
        ];
    replace(
      page,
      pageHead(flow.name, { lead: flow.description, crumbs: [["Flows", "#/flows"]], actions }),
      facts([
        ["Flow id", copyable(flow.flow_id, "flow id")],
        ["State", badge(flow.state)],
        ["Version", versions(flow)],
        ["Changed", ago(flow.updated_at)],
        ["Runs", plural(flow.runs, "run")],
        [
          "Tags",
          flow.tags?.length
            ? flow.tags.map((tag) => h("a", { class: "tag", href: `#/runs?tag=${encodeURIComponent(tag)}` }, tag))
            : null,
        ],
      ]),
      h("div", { class: "columns" }, card("Latest runs", runs), card("What a run will do", plan)),
      card("Definition", definition),
    );
    replace(definition, code(flow.definition ?? {}, "The flow's definition"));
  }

  function versions({ version }) {
    if (!version || (version === 1 && !query.get("version"))) return `${version}`;
    const latest = Number(query.get("latest") ?? version);
    const all = Array.from({ length: latest }, (_, index) => String(latest - index));
    const choice = select(all, String(version), { "aria-label": "Version" });
    choice.addEventListener("change", () =>
      go(`flows/${encodeURIComponent(id)}`, Number(choice.value) === latest ? {} : { version: choice.value, latest }),
    );
    return choice;
  }

  function showRuns({ runs: found }) {
    replace(
      runs,
      found.length
        ? table(
            "Latest runs of this flow",
            [
              ["State", "state", (run) => badge(run.state)],
              [
                "Run",
                "wide",
                (run) =>
                  h(
                    "a",
                    { href: `#/runs/${encodeURIComponent(run.run_id)}`, dataset: { rowLink: "" } },
                    h("code", {}, run.run_id),
                  ),
              ],
              ["Started", "when", (run) => ago(run.started_at ?? run.created_at)],
              ["Duration", "lasts", (run) => lasting(h("span", {}), run)],
            ],
            found,
          )
        : h("p", { class: "muted" }, "It never ran."),
      found.length
        ? h("p", {}, h("a", { href: `#/runs?flow_id=${encodeURIComponent(id)}` }, "All runs of this flow"))
        : null,
    );
  }

  function showPlan(told) {
    const { plan: shape, estimate } = told;
    replace(
      plan,
      h("p", {}, told.summary),
      facts([
        ["Tasks", shape && `${plural(shape.tasks, "task")} in ${plural(shape.stages, "stage")}`],
        ["Tools", shape?.tools?.length ? shape.tools.map((tool) => h("code", { class: "tag" }, tool)) : null],
        [
          "Probably takes",
          estimate &&
            `${duration(estimate.p50_s)} (90 % under ${duration(estimate.p90_s)}; ${estimate.samples ? `from ${plural(estimate.samples, "run")}` : "a guess, it never ran"})`,
        ],
        ["Critical path", told.critical_path?.join(" → ")],
        ["Touches", told.side_effects?.join(", ")],
      ]),
    );
  }

  live.follow(loadRuns, REFRESH_MS, signal, (change) => change.flow_id === id);
  for (const read of [load, loadRuns, loadPlan]) read();
  return { element: page, title: id };
}
