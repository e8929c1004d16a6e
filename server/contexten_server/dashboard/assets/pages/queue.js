// What waits to start, and why; and the strategy that orders it, with what the others would do.

import { duration, number, plural, relativeTime } from "../run/format.js";
import { done, formDialog } from "../ui/dialogs.js";
import { badge, button, card, empty, field, figure, h, pageHead, replace, select } from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago } from "../ui/times.js";

const REFRESH_MS = 700;
const STRATEGIES = [
  ["fifo", "First in, first out"],
  ["priority", "Priority, with aging"],
  ["resource_aware", "Resources that are free"],
  ["load_balanced", "Balanced load"],
  ["deadline_aware", "Deadlines"],
];
const NAMES = Object.fromEntries(STRATEGIES);
const INTERNAL = new RegExp(`\\b(?:${Object.keys(NAMES).join("|")})\\b`, "g");
const PRIORITIES = ["critical", "high", "normal", "low", "background"];

/** A text of the server's with the names of strategies as this page has them. */
const worded = (text) => text.replace(INTERNAL, (name) => `“${NAMES[name]}”`);

export function open({ app, api, live, signal }) {
  const queue = h("div", {});
  const state = h("div", {});
  const forecast = h(
    "div",
    { class: "stack" },
    h("p", { class: "muted" }, "Recent history and the queue are replayed through every strategy."),
  );
  let shown = null;

  const load = latest(queue, { ask: () => Promise.all([api.queue({ limit: 100 }), api.scheduler()]), show, signal });

  function show([told, scheduler]) {
    shown = told;
    replace(
      state,
      h(
        "div",
        { class: "figures" },
        figure("Strategy", NAMES[told.strategy] ?? told.strategy),
        figure("Under way", `${scheduler.running} / ${told.max_concurrent_flows}`, "runs, of the limit"),
        figure("Queued", scheduler.queued),
        figure("Waiting", scheduler.waiting, "for a time, an approval or a signal"),
        figure("Paused", scheduler.paused),
        figure(
          "Servers",
          scheduler.servers.length,
          scheduler.servers.length ? null : "none drives this database now",
        ),
      ),
    );
    const hidden = told.queued + told.held - told.runs.length;
    replace(
      queue,
      told.runs.length
        ? [list(told.runs), hidden > 0 ? h("p", { class: "muted" }, `and ${plural(hidden, "run")} more`) : null]
        : empty(
            "Nothing waits",
            "Every run that was asked for has started. Runs show here when the limit, a dependency or a lack of agents holds them.",
            h("a", { class: "button", href: "#/runs" }, "See all runs"),
          ),
    );
  }

  const list = (runs) =>
    table(
      "Queued runs in the order in which they will start, each with what it waits for",
      [
        ["#", "place numeric", ({ place }) => place],
        [
          "Run",
          "wide",
          ({ run }) => [
            h(
              "a",
              { class: "row-link", href: `#/runs/${encodeURIComponent(run.run_id)}`, dataset: { rowLink: "" } },
              run.name || run.flow_id,
            ),
            h("div", { class: "ids" }, h("code", {}, run.run_id)),
          ],
        ],
        ["State", "state", ({ run }) => badge(run.state)],
        [
          "Waits for",
          "wide",
          ({ waiting_for }) =>
            h(
              "ul",
              { class: "reasons" },
              (waiting_for ?? []).map((reason) => h("li", {}, reason)),
            ),
        ],
        ["Priority", "", ({ run }) => PRIORITIES[run.priority] ?? run.priority ?? "normal"],
        [
          "Deadline",
          "",
          ({ run }) =>
            run.deadline
              ? h(
                  "span",
                  {},
                  relativeTime(run.deadline.at),
                  run.deadline.missed ? " · missed" : run.deadline.at_risk ? " · at risk" : "",
                )
              : "–",
        ],
        ["Submitted", "when", ({ run }) => ago(run.created_at)],
      ],
      runs.map((entry, index) => ({ ...entry, place: index + 1 })),
    );

  const slots = h("input", { type: "number", min: "1", max: "100000", placeholder: "as now" });
  const loadForecast = latest(forecast, {
    ask: () => api.forecast(slots.value || null),
    show: (told) => replace(forecast, h("p", {}, worded(told.reason)), told.strategies?.length ? whatIf(told) : null),
    signal,
  });
  function compare() {
    if (!slots.reportValidity()) return undefined;
    replace(forecast, h("p", { class: "muted", role: "status" }, "Replaying …"));
    return loadForecast();
  }

  function whatIf({ strategies, recommended, runs, from_history, queued, slots: places }) {
    const frame = table(
      "What each strategy would do",
      [
        [
          "Strategy",
          "",
          ({ strategy }) => [
            `${NAMES[strategy] ?? strategy} `,
            strategy === recommended ? h("span", { class: "tag" }, "recommended") : null,
            strategy === shown?.strategy ? h("span", { class: "tag" }, "now") : null,
          ],
        ],
        ["Mean wait", "numeric", (row) => duration(row.mean_wait_s)],
        ["95 % under", "numeric", (row) => duration(row.p95_wait_s)],
        ["Urgent", "numeric", (row) => duration(row.urgent_wait_s)],
        ["Longest", "numeric", (row) => duration(row.longest_wait_s)],
        ["Starved", "numeric", (row) => number(row.starved)],
        ["Missed deadlines", "numeric", (row) => number(row.missed_deadlines)],
        ["All done after", "numeric", (row) => duration(row.makespan_s)],
        ["Slots used", "numeric", (row) => `${Math.round(100 * row.slot_utilisation)} %`],
      ],
      strategies,
    );
    return [
      frame,
      h(
        "p",
        { class: "muted" },
        `From ${plural(runs, "run")}: ${number(from_history)} of the history, ${number(queued)} queued; ${plural(places, "slot")}.`,
      ),
    ];
  }

  function change() {
    const strategy = select(STRATEGIES, shown?.strategy ?? "fifo");
    const limit = h("input", { type: "number", min: "1", max: "100000", value: shown?.max_concurrent_flows ?? 1 });
    const effect = h("p", { class: "muted", role: "status" });
    const asked = () => ({ strategy: strategy.value, max_concurrent_flows: Number(limit.value) });
    const preview = async () => {
      try {
        replace(effect, worded((await api.setStrategy({ ...asked(), dry_run: true })).effect));
      } catch (error) {
        replace(effect, error.message);
      }
    };
    for (const control of [strategy, limit]) control.addEventListener("change", preview);
    formDialog(
      "Strategy and limit",
      [field("Strategy", strategy, "Which queued run starts next"), field("Runs at once", limit), effect],
      {
        label: "Set",
        submit: async () => {
          const changed = await api.setStrategy(asked());
          done(worded(changed.effect));
          await load();
        },
      },
    );
  }

  live.follow(load, REFRESH_MS, signal);
  load();

  return {
    title: "Queue",
    element: h(
      "div",
      { class: "page" },
      pageHead("Queue", { actions: app.isReadOnly ? [] : [button("Change strategy", change, { kind: "primary" })] }),
      state,
      queue,
      card(
        "What if",
        h("div", { class: "toolbar" }, field("Runs at once", slots), button("Compare strategies", compare)),
        forecast,
      ),
    ),
  };
}
