// Why a run failed, and what may mend it.

import { h } from "./dom.js";

/** What may mend it as it is told to agents: calls of tools. */
export function asCalls(calls) {
  return calls.map((call) => h("code", {}, call));
}

/** The callout of a failed run; `ways` are the children of each way to mend it, `select(task)` shows the task that failed. */
export function createFailure({ task, kind }, summary, ways, select) {
  return h(
    "div",
    { class: "cf-callout", dataset: { tone: "failed" } },
    h(
      "p",
      {},
      h("strong", {}, task ? "Failed in " : "Failed: "),
      task ? h("button", { type: "button", class: "cf-link", onclick: () => select(task) }, task) : null,
      h("span", { class: "cf-chip" }, kind),
    ),
    h("p", { class: "cf-message" }, summary),
    ways.length
      ? [
          h("p", { class: "cf-quiet" }, "What may mend it, the likeliest first:"),
          h(
            "ol",
            { class: "cf-ways" },
            ways.map((way) => h("li", {}, way)),
          ),
        ]
      : null,
  );
}
