// One trigger, and what was delivered to it.

import { done, failed, formDialog, confirm } from "../ui/dialogs.js";
import {
  badge,
  button,
  card,
  code,
  copyable,
  empty,
  facts,
  field,
  h,
  pageHead,
  problem,
  replace,
  select,
} from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago, at } from "../ui/times.js";
import { kindLabel } from "../ui/trigger_form.js";
import { parseJson } from "../ui/json_text.js";

const REFRESH_MS = 700;
const STATES = [
  ["", "All states"],
  ["accepted", "Accepted"],
  ["started", "Started"],
  ["filtered", "Filtered"],
  ["failed", "Failed"],
];
const WORDS = Object.fromEntries(STATES);

export function open({ app, api, live, go, id, signal }) {
  const page = h("div", { class: "page" });
  const deliveries = h("div", {});
  const more = h("div", { class: "pager" });
  const state = select(STATES, "", { "aria-label": "State of the deliveries", class: "short" });
  let shown = 25;
  state.addEventListener("change", () => loadDeliveries());

  const load = latest(page, {
    ask: () => api.trigger(id),
    show,
    refuse: (error) => replace(page, pageHead(id, { crumbs: [["Triggers", "#/triggers"]] }), problem(error)),
    signal,
  });
  const loadDeliveries = latest(deliveries, {
    ask: () => api.deliveries({ trigger_id: id, state: state.value, limit: shown }),
    show: showDeliveries,
    signal,
  });

  function show(trigger) {
    document.title = `${trigger.name} · Contexten Flow`;
    const actions = app.isReadOnly
      ? []
      : [
          button("Delete", () => remove(trigger), { symbol: "trash" }),
          button(trigger.enabled ? "Switch off" : "Switch on", () => toggle(trigger)),
          button("Test", () => test(trigger), { kind: "primary", symbol: "play" }),
        ];
    replace(
      page,
      pageHead(trigger.name, { crumbs: [["Triggers", "#/triggers"]], actions }),
      facts([
        ["State", trigger.enabled ? badge("completed", "On") : badge("cancelled", "Off")],
        ["Kind", kindLabel(trigger.kind)],
        [
          "Starts",
          trigger.flow_id
            ? h("a", { href: `#/flows/${encodeURIComponent(trigger.flow_id)}` }, trigger.flow_id)
            : trigger.handler,
        ],
        ["Next", trigger.next_at ? [at(trigger.next_at), " (", ago(trigger.next_at), ")"] : null],
        ["Waiting deliveries", trigger.waiting || null],
        ["Its sender posts to", trigger.url ? copyable(`${new URL(`.${trigger.url}`, document.baseURI)}`, "address") : null],
        ["Trigger id", copyable(trigger.trigger_id, "trigger id")],
      ]),
      card(["Deliveries", state], deliveries, more),
      h(
        "div",
        { class: "columns" },
        card("Config", code(trigger.config, "Config")),
        trigger.filter ? card("Filter", code(trigger.filter, "Filter")) : null,
        trigger.inputs ? card("Inputs", code(trigger.inputs, "Inputs")) : null,
      ),
    );
  }

  function showDeliveries({ deliveries: found, next_page }) {
    replace(
      deliveries,
      found.length
        ? rows(found)
        : empty(
            "Nothing was delivered",
            state.value ? "No delivery is in this state." : "Test the trigger to see what it would do about an event.",
          ),
    );
    replace(
      more,
      next_page && shown < 200
        ? button("Show more", () => ((shown = Math.min(200, shown * 4)), loadDeliveries()))
        : null,
    );
  }

  const rows = (found) =>
    table(
      "Deliveries, newest first",
      [
        ["State", "state", (delivery) => badge(delivery.state, WORDS[delivery.state])],
        [
          "Event",
          "wide",
          (delivery) => [h("span", {}, delivery.type), h("div", { class: "ids" }, h("code", {}, delivery.event_id))],
        ],
        [
          "Became",
          "wide",
          (delivery) =>
            delivery.run_id
              ? h(
                  "a",
                  { href: `#/runs/${encodeURIComponent(delivery.run_id)}`, dataset: { rowLink: "" } },
                  h("code", {}, delivery.run_id),
                )
              : h("span", { class: "muted" }, delivery.error?.message ?? delivery.reason ?? "–"),
        ],
        ["Received", "when", (delivery) => ago(delivery.received_at)],
        [
          "",
          "row-actions",
          (delivery) =>
            !app.isReadOnly && ["failed", "filtered"].includes(delivery.state)
              ? button("Redeliver", () => again(delivery), { kind: "small" })
              : null,
        ],
      ],
      found,
    );

  async function again(delivery) {
    try {
      await api.redeliver(delivery.delivery_id);
      done("It is looked at again.");
      await loadDeliveries();
    } catch (error) {
      failed(error);
    }
  }

  async function toggle(trigger) {
    try {
      await api.updateTrigger(id, { enabled: !trigger.enabled });
      await load();
    } catch (error) {
      failed(error);
    }
  }

  async function remove(trigger) {
    if (
      await confirm(
        `Delete ${trigger.name}?`,
        "It starts nothing more. What it started stays.",
        "Delete the trigger",
        () => api.deleteTrigger(id),
      )
    )
      go("triggers");
  }

  async function test() {
    const payload = h("textarea", {
      rows: 6,
      class: "code-input",
      spellcheck: "false",
      placeholder: "Left empty: an example of its kind",
    });
    const type = h("input", { type: "text", spellcheck: "false" });
    const start = h("input", { type: "checkbox" });
    const answer = await formDialog(
      "Test the trigger",
      [
        field("Payload (JSON)", payload, "As its sender would send it"),
        field("Type", type, "What happened, such as pull_request:opened"),
        h("label", { class: "check" }, start, "Deliver it really: a run may start"),
      ],
      {
        label: "Test",
        submit: () =>
          api.testTrigger(id, {
            ...(payload.value.trim() && { payload: parseJson(payload.value, "The payload") }),
            ...(type.value.trim() && { type: type.value.trim() }),
            start: start.checked,
          }),
      },
    );
    if (answer) {
      tell(answer);
      await loadDeliveries();
    }
  }

  function tell(answer) {
    formDialog(
      answer.starts ? (answer.delivery ? "It was delivered" : "It would start a run") : "Nothing would start",
      [
        answer.reason ? h("p", {}, answer.reason) : null,
        answer.error ? problem(answer.error) : null,
        answer.inputs ? [h("h3", {}, "Inputs"), code(answer.inputs, "Inputs")] : null,
        h("h3", {}, "Event"),
        code(answer.event, "Event"),
      ],
      { label: "Done", size: "large", submit: async () => true },
    );
  }

  live.follow(loadDeliveries, REFRESH_MS, signal);
  load();
  loadDeliveries();
  return { element: page, title: id };
}
