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
  nothingThere,
  pageHead,
  problem,
  replace,
  say,
  select,
} from "../ui/elements.js";
import { latest, refill } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago, lasting } from "../ui/times.js";
import { runFlow } from "../ui/run_form.js";

const REFRESH_MS = 700;

export function open({ app, api, live, go, id, query, signal }) {
  const page = h("div", { class: "page" });
  const head = h("div", {});
  const about = h("div", {});
  const count = h("span", {});
  const runs = h("div", { class: "stack" });
  const plan = h("div", { class: "stack" });
  const definition = h("div", {});
  const content = [
    head,
    about,
    h("div", { class: "columns" }, card("Latest runs", runs), card("What a run will do", plan)),
    card("Definition", definition),
  ];

  const load = latest(page, {
    ask: () => api.flow(id, query.get("version")),
    show,
    refuse: (error) =>
      error.code === "flow_not_found" && !query.get("version")
        ? replace(page, nothingThere("flow", id, "flows", error.message))
        : replace(page, pageHead(id, { crumbs: [["Flows", "#/flows"]] }), problem(error)),
    signal,
  });
  const loadRuns = latest(runs, {
    ask: () => api.runs({ flow_id: id, limit: 8 }),
    show: ({ runs: found }) => refill(runs, found, () => listed(found)),
    signal,
  });
  const loadPlan = latest(plan, {
    ask: () => api.flowExplanation(id),
    show: (told) => refill(plan, told, () => foretold(told)),
    signal,
  });

  function show(flow) {
    const { flow_id, name, description, version, state, updated_at, tags } = flow;
    document.title = `${name} · Contexten Flow`;
    if (head.parentNode !== page) replace(page, content);
    refill(head, [name, description], () =>
      pageHead(name, { lead: description, crumbs: [["Flows", "#/flows"]], actions: app.isReadOnly ? [] : actions() }),
    );
    say(count, plural(flow.runs, "run"));
    refill(about, [version, state, updated_at, tags], () =>
      facts([
        ["Flow id", copyable(flow_id, "flow id")],
        ["State", badge(state)],
        ["Version", versions(flow)],
        ["Changed", ago(updated_at)],
        ["Runs", count],
        [
          "Tags",
          tags?.length
            ? tags.map((tag) => h("a", { class: "tag", href: `#/runs?tag=${encodeURIComponent(tag)}` }, tag))
            : null,
        ],
      ]),
    );
    refill(definition, flow.definition ?? {}, () => code(flow.definition ?? {}, "The flow's definition"));
  }

  const actions = () => [
    h("a", { class: "button", href: `#/create?flow=${encodeURIComponent(id)}` }, icon("edit"), h("span", {}, "Edit")),
    h(
      "a",
      { class: "button", href: `#/triggers?create=${encodeURIComponent(id)}` },
      icon("triggers"),
      h("span", {}, "Add a trigger"),
    ),
    button("Run", () => runFlow({ api, go, flow_id: id }).catch(failed), { kind: "primary", symbol: "play" }),
  ];

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

  const listed = (found) =>
    found.length
      ? [
          table(
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
          ),
          h("p", {}, h("a", { href: `#/runs?flow_id=${encodeURIComponent(id)}` }, "All runs of this flow")),
        ]
      : h("p", { class: "muted" }, "It never ran.");

  function foretold({ plan: shape, estimate, ...told }) {
    return [
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
    ];
  }

  const isHere = (change) => change.flow_id === id;
  const isChanged = (change) => isHere(change) && change.types.some((type) => type.startsWith("flow."));
  live.follow(load, REFRESH_MS, signal, (change) => isChanged(change) || (isHere(change) && change.state !== null));
  live.follow(loadRuns, REFRESH_MS, signal, isHere);
  live.follow(loadPlan, REFRESH_MS, signal, isChanged);
  for (const read of [load, loadRuns, loadPlan]) read();
  return { element: page, title: id };
}
