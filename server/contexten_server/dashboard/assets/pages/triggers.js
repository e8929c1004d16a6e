// What starts flows by itself.

import { failed } from "../ui/dialogs.js";
import { button, empty, h, pageHead, replace, select } from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago } from "../ui/times.js";
import { createTrigger, kindLabel, triggerState } from "../ui/trigger_form.js";
import { number } from "../run/format.js";

const REFRESH_MS = 1000;

export function open({ app, api, live, go, query, signal }) {
  const list = h("div", {});
  const more = h("div", { class: "pager" });
  const wanted = query.get("kind") ?? "";
  const kind = select([["", "All kinds"], ...(wanted ? [[wanted, kindLabel(wanted)]] : [])], wanted, {
    "aria-label": "Kind",
    class: "short",
  });
  let shown = 50;
  kind.addEventListener("change", () => {
    go("triggers", { kind: kind.value }, { replace: true });
    load();
  });

  async function offerKinds() {
    const others = Object.keys(await api.triggerKinds()).filter((key) => key !== wanted);
    kind.append(...others.map((key) => h("option", { value: key }, kindLabel(key))));
  }

  async function create(flow_id) {
    try {
      const created = await createTrigger({ api, flow_id, signal });
      if (created) go(`triggers/${encodeURIComponent(created.trigger_id)}`);
    } catch (error) {
      failed(error);
    }
  }

  const load = latest(list, {
    ask: () => api.triggers({ kind: kind.value, limit: shown }),
    show({ triggers, next_page }) {
      replace(list, triggers.length ? rows(triggers) : nothing());
      replace(more, next_page && shown < 200 ? button("Show more", () => ((shown = 200), load())) : null);
    },
    signal,
  });

  const nothing = () =>
    empty(
      kind.value ? "No trigger of this kind" : "No triggers yet",
      "A trigger starts a flow by itself: at a time, when GitHub, Linear, Slack or any program sends a signed message, when files change, or when another flow ends.",
      ...(app.isReadOnly ? [] : [button("Create a trigger", () => create(), { kind: "primary", symbol: "plus" })]),
    );

  const rows = (triggers) =>
    table(
      "Triggers",
      [
        [
          "Trigger",
          "",
          (trigger) => [
            h(
              "a",
              {
                class: "row-link",
                href: `#/triggers/${encodeURIComponent(trigger.trigger_id)}`,
                dataset: { rowLink: "" },
              },
              trigger.name,
            ),
            h("div", { class: "ids" }, h("code", {}, trigger.trigger_id)),
          ],
        ],
        ["Kind", "", (trigger) => kindLabel(trigger.kind)],
        [
          "Starts",
          "",
          (trigger) =>
            trigger.flow_id
              ? h("a", { href: `#/flows/${encodeURIComponent(trigger.flow_id)}` }, trigger.flow_id)
              : h("code", {}, trigger.handler),
        ],
        ["State", "", triggerState],
        ["Next", "when", (trigger) => ago(trigger.next_at) ?? "–"],
        ["Waiting", "numeric", (trigger) => number(trigger.waiting)],
      ],
      triggers,
    );

  live.follow(load, REFRESH_MS, signal);
  load();
  offerKinds().catch(failed);
  if (query.get("create") !== null && !app.isReadOnly) create(query.get("create"));
  return {
    title: "Triggers",
    element: h(
      "div",
      { class: "page" },
      pageHead("Triggers", {
        lead: "What starts flows by itself.",
        actions: app.isReadOnly ? [] : [button("New trigger", () => create(), { kind: "primary", symbol: "plus" })],
      }),
      h("div", { class: "toolbar" }, kind),
      list,
      more,
    ),
  };
}
