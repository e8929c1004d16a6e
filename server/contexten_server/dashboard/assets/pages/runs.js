// All runs, newest first. The server searches, filters and pages; here are the rows of one page, and changes reach them
// as they happen.

import { coalesce } from "../live.js";
import { announce, done, failed, formDialog } from "../ui/dialogs.js";
import {
  button,
  empty,
  field,
  h,
  icon,
  iconButton,
  pageHead,
  problem,
  replace,
  say,
} from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { keyed } from "../ui/tables.js";
import { isEnded, number, stateLabel } from "../run/format.js";
import { runAgain } from "../ui/run_form.js";
import { runRow } from "../ui/run_row.js";

const LIMIT = 50;
const STATES = ["running", "scheduled", "waiting", "paused", "completed", "failed", "cancelled"];
const TYPING_MS = 180;
const REFRESH_MS = 120;
const COUNT_MS = 1500;

export function open({ app, api, live, go, query, signal }) {
  const filters = {
    status: query.get("status"),
    search: query.get("search"),
    flow_id: query.get("flow_id"),
    tag: query.get("tag"),
  };
  let pages = [query.get("page")];
  let nextPage = null;

  const rows = h("tbody", {});
  const frame = h(
    "div",
    { class: "table-frame", hidden: true },
    h(
      "table",
      { class: "table runs" },
      h("caption", { class: "visually-hidden" }, "Runs, newest first"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["State", "Run", "Progress", "Started", "Duration"].map((title) => h("th", { scope: "col" }, title)),
          h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")),
        ),
      ),
      rows,
    ),
  );
  const notice = h("div", {}, h("p", { class: "loading", role: "status" }, "Loading…"));
  const content = h("div", { class: "content" }, notice, frame);
  const previous = button("Newer", () => turn(-1), { symbol: "previous" });
  const next = button("Older", () => turn(1), { symbol: "next" });
  const place = h("span", { class: "place" });
  const pager = h("nav", { class: "pager", "aria-label": "Pages of runs", hidden: true }, previous, place, next);

  const search = h("input", {
    type: "search",
    value: filters.search ?? "",
    placeholder: "Search name, id or tag",
    maxlength: 200,
    "aria-label": "Search runs",
    autocomplete: "off",
    spellcheck: "false",
  });
  const tag = h("input", {
    type: "text",
    value: filters.tag ?? "",
    placeholder: "Tag",
    "aria-label": "Tag",
    autocomplete: "off",
    class: "short",
  });
  const flow = h("input", {
    type: "text",
    value: filters.flow_id ?? "",
    placeholder: "Flow id",
    "aria-label": "Flow id",
    autocomplete: "off",
    class: "short",
    list: "known-flows",
  });
  const known = h("datalist", { id: "known-flows" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "State" }, [null, ...STATES].map(chip));
  const clear = button("Clear filters", () => change({ status: null, search: null, flow_id: null, tag: null }), {
    kind: "quiet",
    hidden: true,
  });

  function chip(state) {
    return h(
      "button",
      {
        type: "button",
        class: "chip",
        dataset: { status: state ?? "" },
        "aria-pressed": String((filters.status ?? null) === state),
        onclick: () => change({ status: state }),
      },
      state === null ? "All" : stateLabel(state),
      h("span", { class: "chip-count" }),
    );
  }

  function change(changed) {
    Object.assign(filters, changed);
    pages = [null];
    if (search.value.trim() !== (filters.search ?? "")) search.value = filters.search ?? "";
    if (tag.value.trim() !== (filters.tag ?? "")) tag.value = filters.tag ?? "";
    if (flow.value.trim() !== (filters.flow_id ?? "")) flow.value = filters.flow_id ?? "";
    for (const element of chips.children)
      element.setAttribute("aria-pressed", String(element.dataset.status === (filters.status ?? "")));
    remember();
    return load();
  }

  function turn(by) {
    if (by > 0) pages.push(nextPage);
    else pages.pop();
    if (!pages.length) pages.push(null); // opened on a later page: what came before it is not known
    remember();
    load().then(() => scrollTo(0, 0));
  }

  function remember() {
    go("runs", { ...filters, page: pages.at(-1) }, { replace: true });
  }

  let typing;
  const later = () => {
    clearTimeout(typing);
    typing = setTimeout(
      () => change({ search: search.value.trim(), tag: tag.value.trim(), flow_id: flow.value.trim() }),
      TYPING_MS,
    );
  };
  for (const input of [search, tag, flow]) input.addEventListener("input", later);
  signal.addEventListener("abort", () => clearTimeout(typing));
  flow.addEventListener(
    "focus",
    async () => {
      try {
        const { flows } = await api.flows({ limit: 100 });
        replace(
          known,
          flows.map(({ flow_id, name }) => h("option", { value: flow_id }, name)),
        );
      } catch (error) {
        failed(error);
      }
    },
    { once: true },
  );

  const load = latest(content, {
    ask: () => api.runs({ ...filters, limit: LIMIT, page: pages.at(-1) }, signal),
    show,
    refuse(error) {
      replace(notice, problem(error));
      frame.hidden = error.status === 404 || error.status === 400 || !rows.children.length;
    },
    signal,
  });

  function show({ runs, next_page }) {
    nextPage = next_page ?? null;
    replace(notice, runs.length ? null : nothing());
    frame.hidden = runs.length === 0;
    keyed(
      rows,
      runs,
      (run) => run.run_id,
      (run) => runRow(run, act),
    );
    previous.disabled = pages.length < 2 && pages[0] === null;
    next.disabled = nextPage === null;
    pager.hidden = previous.disabled && next.disabled;
    say(place, runs.length ? `${number(runs.length)} runs on this page` : "");
    clear.hidden = !Object.values(filters).some(Boolean);
  }

  function nothing() {
    if (Object.values(filters).some(Boolean)) {
      return empty(
        "No run matches",
        "Nothing has this state, name, flow and tag.",
        button("Clear filters", () => change({ status: null, search: null, flow_id: null, tag: null })),
      );
    }
    return empty(
      "No runs yet",
      "Describe a flow as JSON, have it checked as you type, and run it. Agents do the same through MCP.",
      h("a", { class: "button primary", href: "#/create" }, icon("plus"), h("span", {}, "Create a flow")),
    );
  }

  function act(run) {
    const label = run.name || run.flow_id;
    if (app.isReadOnly) return null;
    if (!isEnded(run.state)) return iconButton("stop", `Cancel ${label}`, () => cancel(run));
    return iconButton("again", `${run.state === "completed" ? "Run again" : "Retry"} ${label}`, () => again(run));
  }

  function cancel(run) {
    const reason = h("input", { type: "text", maxlength: 500, autofocus: true });
    return formDialog(
      `Cancel ${run.name || run.flow_id}?`,
      [h("p", {}, "Attempts under way are ended. What is recorded stays."), field("Reason (optional)", reason)],
      {
        label: "Cancel the run",
        kind: "danger",
        submit: async () => {
          await api.act(run.run_id, { action: "cancel", reason: reason.value.trim() || null });
          load();
        },
      },
    );
  }

  async function again(run) {
    try {
      if (run.state === "completed") return await runAgain({ api, go }, run);
      const result = await api.act(run.run_id, { action: "retry" });
      done("A new run takes over what was completed.", `#/runs/${encodeURIComponent(result.run_id)}`, "See it");
      await load();
    } catch (error) {
      failed(error);
    }
  }

  // Changes: a row changes as a whole, with the next answer.
  const ended = new Map();
  const tell = coalesce(async () => {
    if (!ended.size) return;
    const states = [...ended.values()];
    announce(
      [...new Set(states)]
        .map((state) => `${states.filter((one) => one === state).length} ${stateLabel(state).toLowerCase()}`)
        .join(", "),
    );
    ended.clear();
  }, 5000);
  live.listen((news) => {
    if (news.type !== "change" || !isEnded(news.state)) return;
    if (!rows.querySelector(`[data-run="${CSS.escape(news.run_id)}"]`)) return;
    ended.set(news.run_id, news.state);
    tell();
  }, signal);

  async function count() {
    const by = await api.overview().then(
      (overview) => overview.runs,
      () => null,
    );
    if (by === null) return;
    for (const element of chips.children) {
      const state = element.dataset.status;
      const many = state ? (by[state] ?? 0) : Object.values(by).reduce((sum, one) => sum + one, 0);
      say(element.querySelector(".chip-count"), many ? number(many) : "");
    }
  }

  live.follow(load, REFRESH_MS, signal);
  live.follow(count, COUNT_MS, signal);
  load();
  count();

  const element = h(
    "div",
    { class: "page" },
    pageHead("Runs", {
      actions: app.isReadOnly
        ? []
        : [h("a", { class: "button primary", href: "#/create" }, icon("plus"), h("span", {}, "New flow"))],
    }),
    h(
      "div",
      { class: "toolbar", role: "search" },
      h("div", { class: "search" }, icon("search"), search, h("kbd", { "aria-hidden": "true" }, "/")),
      flow,
      known,
      tag,
      clear,
    ),
    chips,
    content,
    pager,
  );
  return { element, title: "Runs" };
}
