// All flows with their latest runs.

import { failed } from "../ui/dialogs.js";
import {
  badge,
  button,
  empty,
  h,
  icon,
  iconButton,
  pageHead,
  problem,
  replace,
  say,
  setBadge,
} from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { keyed } from "../ui/tables.js";
import { ago } from "../ui/times.js";
import { plural } from "../run/format.js";
import { runFlow } from "../ui/run_form.js";

const LIMIT = 50;
const TYPING_MS = 180;
const REFRESH_MS = 700;

export function open({ app, api, live, go, query, signal }) {
  let search = query.get("search");
  let pages = [null];
  let nextPage = null;
  const notice = h("div", {});
  const list = h("ul", { class: "rows flows" });
  const input = h("input", {
    type: "search",
    value: search ?? "",
    placeholder: "Search name, id or tag",
    "aria-label": "Search flows",
    autocomplete: "off",
    spellcheck: "false",
  });
  const previous = button("Newer", () => turn(-1), { symbol: "previous" });
  const next = button("Older", () => turn(1), { symbol: "next" });
  const pager = h(
    "nav",
    { class: "pager", "aria-label": "Pages of flows", hidden: true },
    previous,
    h("span", { class: "place" }),
    next,
  );

  let typing;
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      search = input.value.trim() || null;
      pages = [null];
      go("flows", { search }, { replace: true });
      load();
    }, TYPING_MS);
  });
  signal.addEventListener("abort", () => clearTimeout(typing));

  function turn(by) {
    if (by > 0) pages.push(nextPage);
    else pages.pop();
    load();
  }

  const load = latest(list, {
    ask: () => api.flows({ search, limit: LIMIT, page: pages.at(-1) }),
    show({ flows, next_page }) {
      nextPage = next_page ?? null;
      replace(notice, flows.length ? null : nothing());
      keyed(list, flows, (flow) => flow.flow_id, row);
      previous.disabled = pages.length < 2;
      next.disabled = nextPage === null;
      pager.hidden = previous.disabled && next.disabled;
    },
    refuse: (error) => replace(notice, problem(error)),
    signal,
  });

  function nothing() {
    if (search) return empty("No flow matches", `Nothing is called “${search}”.`);
    return empty(
      "No flows yet",
      "A flow is JSON: stages of tasks. Write one here, or let an agent create it with create_flow.",
      h("a", { class: "button primary", href: "#/create" }, icon("plus"), h("span", {}, "Create a flow")),
    );
  }

  function row(flow) {
    const state = badge(flow.state);
    const name = h("a", {
      href: `#/flows/${encodeURIComponent(flow.flow_id)}`,
      class: "row-link",
      dataset: { rowLink: "" },
    });
    const description = h("p", { class: "description" });
    const meta = h("div", { class: "meta" });
    const latest = h("div", { class: "latest" });
    const run = app.isReadOnly
      ? null
      : iconButton("play", `Run ${flow.name}`, () => runFlow({ api, go, flow_id: flow.flow_id }).catch(failed));
    const element = h(
      "li",
      { class: "row" },
      h("div", { class: "row-main" }, name, description, meta),
      latest,
      h("div", { class: "row-actions" }, run),
    );
    element.update = (now) => {
      const text = JSON.stringify(now);
      if (element.flow === text) return;
      element.flow = text;
      setBadge(state, now.state);
      say(name, now.name);
      say(description, now.description);
      description.hidden = !now.description;
      replace(
        meta,
        h("code", {}, now.flow_id),
        h("span", {}, `v${now.version}`),
        h("span", {}, plural(now.runs, "run")),
        (now.tags ?? []).map((tag) => h("span", { class: "tag" }, tag)),
      );
      const last = now.latest_run;
      replace(
        latest,
        state,
        last
          ? h(
              "a",
              { href: `#/runs/${encodeURIComponent(last.run_id)}`, class: "quiet" },
              ago(last.ended_at ?? last.started_at ?? last.created_at) ?? last.run_id,
            )
          : null,
      );
    };
    element.update(flow);
    return element;
  }

  live.follow(load, REFRESH_MS, signal);
  load();

  return {
    title: "Flows",
    element: h(
      "div",
      { class: "page" },
      pageHead("Flows", {
        actions: app.isReadOnly
          ? []
          : [h("a", { class: "button primary", href: "#/create" }, icon("plus"), h("span", {}, "New flow"))],
      }),
      h(
        "div",
        { class: "toolbar", role: "search" },
        h("div", { class: "search" }, icon("search"), input, h("kbd", { "aria-hidden": "true" }, "/")),
      ),
      notice,
      list,
      pager,
    ),
  };
}
