// How it went lately: how much, how well, how long, and what failed.

import { download } from "../run/dom.js";
import { duration, number } from "../run/format.js";
import { columnChart, lineChart, rankChart } from "../ui/charts.js";
import { failed } from "../ui/dialogs.js";
import { button, card, empty, figure, h, pageHead, replace, select } from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";

const REFRESH_MS = 10_000; // it reads all tasks, and days of history
const SPANS = [
  ["7", "7 days"],
  ["30", "30 days"],
  ["90", "90 days"],
];
const DAY_MS = 86_400_000;

const percent = (share) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(share > 0.999 || share === 0 ? 0 : 1)} %`;
const seconds = (value) => (value === 0 ? "0" : duration(value));

export function open({ api, live, go, query, signal }) {
  const span = select(SPANS, query.get("days") ?? "7", { "aria-label": "Span of time", class: "short" });
  const content = h("div", { class: "stack" });
  span.addEventListener("change", () => {
    go("charts", { days: span.value }, { replace: true });
    load();
  });

  async function ask() {
    const days = Number(span.value);
    const since = new Date(Math.floor(Date.now() / DAY_MS) * DAY_MS - (days - 1) * DAY_MS).toISOString();
    const [metrics, byDay, byKind, byFlow, byTool] = await Promise.all([
      api.metrics(),
      ...["day", "kind", "flow", "tool"].map((by) => api.history({ by, since, limit: by === "day" ? days : 12 })),
    ]);
    return { days, since, metrics, byDay, kinds: byKind.rows, flows: byFlow.rows, tools: byTool.rows };
  }
  const load = latest(content, { ask, show, signal });

  function show({ days, since, metrics, byDay: { rows, is_cut }, kinds, flows, tools }) {
    if (!rows.length) {
      replace(
        content,
        empty(
          "Nothing ended in this span",
          "As soon as runs end, their number, duration and failures show here.",
          h("a", { class: "button", href: "#/runs" }, "See all runs"),
        ),
      );
      return;
    }
    const known = new Map(rows.map((row) => [row.key, row]));
    const keys = Array.from({ length: days }, (_, index) =>
      new Date(Date.parse(since) + index * DAY_MS).toISOString().slice(0, 10),
    );
    const of = (name) => keys.map((key) => known.get(key)?.[name] ?? null);
    const labels = keys.map((key) =>
      new Date(`${key}T12:00Z`).toLocaleDateString(undefined, { month: "short", day: "numeric" }),
    );
    const sum = (name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
    const ended = sum("completed") + sum("failed");
    const waits = metrics.scheduler.waits ?? {};
    const cost = rows.reduce((total, row) => total + (row.cost_usd ?? 0), 0);
    const isOpen = [...content.querySelectorAll("details")].map((one) => one.open);
    replace(
      content,
      h(
        "div",
        { class: "figures" },
        figure("Runs that ended", sum("runs")),
        figure("Success rate", percent(ended ? sum("completed") / ended : null), `${number(sum("failed"))} failed`),
        figure("Retries", sum("retries"), "tries of tasks after the first"),
        figure(
          "Mean wait",
          duration(waits.mean_s) || "–",
          waits.p95_s === undefined || waits.p95_s === null ? "" : `95 % under ${duration(waits.p95_s)}`,
        ),
        figure("Under way now", metrics.scheduler.running ?? 0, `${number(metrics.scheduler.queued ?? 0)} queued`),
        cost ? figure("Cost of models", `$ ${cost.toFixed(2)}`) : null,
      ),
      is_cut ? h("p", { class: "muted" }, "More ended than is looked at: only what ended last counts here.") : null,
      h(
        "div",
        { class: "columns" },
        card(
          "Runs a day",
          columnChart(
            "Runs that ended, by day",
            labels,
            [
              { name: "completed", ink: "ink-good", values: of("completed") },
              { name: "failed", ink: "ink-bad", values: of("failed") },
              { name: "cancelled", ink: "ink-plain", values: of("cancelled") },
            ],
            number,
          ),
        ),
        card(
          "Duration",
          lineChart(
            "Duration of runs, by day",
            labels,
            [
              { name: "p50", ink: "ink-1", values: of("p50_s") },
              { name: "p95", ink: "ink-2", values: of("p95_s"), isDashed: true },
            ],
            seconds,
          ),
        ),
        card(
          "Wait for a start",
          lineChart(
            "Wait of runs for their start, by day",
            labels,
            [
              { name: "p50", ink: "ink-1", values: of("wait_p50_s") },
              { name: "p95", ink: "ink-2", values: of("wait_p95_s"), isDashed: true },
            ],
            seconds,
          ),
        ),
        card(
          "Failures by kind",
          kinds.length
            ? rankChart(
                kinds.map((row) => [row.key, row.failed]),
                number,
                "ink-bad",
              )
            : h("p", { class: "muted" }, "No run failed."),
        ),
      ),
      card(
        "Flows",
        breakdown(
          "Figures by flow",
          "Flow",
          flows,
          (row) => h("a", { href: `#/flows/${encodeURIComponent(row.key)}`, dataset: { rowLink: "" } }, row.key),
          "runs",
        ),
      ),
      tools.length
        ? card(
            "Tools",
            breakdown("Figures by tool", "Tool", tools, (row) => h("code", {}, row.key), "tasks"),
          )
        : null,
    );
    for (const [place, one] of [...content.querySelectorAll("details")].entries()) one.open = isOpen[place] ?? false;
  }

  async function keep() {
    try {
      download("runs.csv", await api.exported("runs.csv", { since: `${span.value}d` }), "text/csv");
    } catch (error) {
      failed(error);
    }
  }

  const breakdown = (caption, title, rows, name, counted) =>
    table(
      caption,
      [
        [title, "", name],
        [counted === "runs" ? "Runs" : "Tasks", "numeric", (row) => number(row[counted])],
        ["Success", "numeric", (row) => percent(row.success_rate)],
        ["p50", "numeric", (row) => (row.p50_s === undefined ? "–" : duration(row.p50_s))],
        ["p95", "numeric", (row) => (row.p95_s === undefined ? "–" : duration(row.p95_s))],
        ["Retries", "numeric", (row) => number(row.retries)],
      ],
      rows,
    );

  live.follow(load, REFRESH_MS, signal);
  load();
  return {
    title: "Charts",
    element: h("div", { class: "page" }, pageHead("Charts", { actions: [button("Export CSV", keep), span] }), content),
  };
}
