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
  nothingThere,
  pageHead,
  problem,
  replace,
  select,
} from "../ui/elements.js";
import { latest, refill } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago, at } from "../ui/times.js";
import { isUnhandled, kindLabel, triggerState } from "../ui/trigger_form.js";
import { parseJson } from "../ui/json_text.js";

const REFRESH_MS = 700;
const STATES = [
  ["", "All states"],
  ["accepted", "Accepted"],
  ["started", "Started"],
  ["filtered", "Filtered"],
  ["failed", "Failed"],
];
const UNHANDLED = "No program that runs. Nothing fires or starts until one has its function.";
const WORDS = Object.fromEntries(STATES);

export function open({ app, api, live, go, id, signal }) {
  const page = h("div", { class: "page" });
  const head = h("div", {});
  const about = h("div", {});
  const deliveries = h("div", {});
  const more = h("div", { class: "pager" });
  const state = select(STATES, "", { "aria-label": "State of the deliveries", class: "short" });
  const parts = [part("Config", "config"), part("Filter", "filter"), part("Inputs", "inputs")];
  const content = [
    head,
    about,
    card(["Deliveries", state], deliveries, more),
    h(
      "div",
      { class: "columns" },
      parts.map((one) => one.element),
    ),
  ];
  let shown = 25;
  state.addEventListener("change", () => loadDeliveries());

  const load = latest(page, {
    ask: () => api.trigger(id),
    show,
    refuse: (error) =>
      error.code === "trigger_not_found"
        ? replace(page, nothingThere("trigger", id, "triggers", `${error.message} It may have been deleted.`))
        : replace(page, pageHead(id, { crumbs: [["Triggers", "#/triggers"]] }), problem(error)),
    signal,
  });
  const loadDeliveries = latest(deliveries, {
    ask: () => api.deliveries({ trigger_id: id, state: state.value, limit: shown }),
    show: (told) => refill(deliveries, told, () => listed(told)),
    signal,
  });

  /** One of the texts that a trigger is told, which is shown where there is one. */
  function part(title, name) {
    const text = h("div", {});
    const element = card(title, text);
    const update = (trigger) => {
      element.hidden = !trigger[name];
      refill(text, trigger[name], () => code(trigger[name] ?? "", title));
    };
    return { element, update };
  }

  function show(trigger) {
    const { name, enabled } = trigger;
    document.title = `${name} · Contexten Flow`;
    if (head.parentNode !== page) replace(page, content);
    refill(head, [name, enabled], () =>
      pageHead(name, { crumbs: [["Triggers", "#/triggers"]], actions: app.isReadOnly ? [] : actions(trigger) }),
    );
    refill(about, trigger, () => told(trigger));
    for (const one of parts) one.update(trigger);
  }

  const actions = (trigger) => [
    button("Delete", () => remove(trigger), { symbol: "trash" }),
    button(trigger.enabled ? "Switch off" : "Switch on", () => toggle(trigger)),
    button("Test", () => test(trigger), { kind: "primary", symbol: "play" }),
  ];

  const told = (trigger) =>
    facts([
      ["State", triggerState(trigger)],
      ["Kind", kindLabel(trigger.kind)],
      [
        "Starts",
        trigger.flow_id
          ? h("a", { href: `#/flows/${encodeURIComponent(trigger.flow_id)}` }, trigger.flow_id)
          : trigger.handler,
      ],
      ["Handled by", isUnhandled(trigger) ? UNHANDLED : null],
      ["Next", trigger.next_at ? [at(trigger.next_at), " (", ago(trigger.next_at), ")"] : null],
      ["Waiting deliveries", trigger.waiting || null],
      ["Its sender posts to", trigger.url ? copyable(`${new URL(`.${trigger.url}`, document.baseURI)}`, "address") : null],
      ["Trigger id", copyable(trigger.trigger_id, "trigger id")],
    ]);

  function listed({ deliveries: found, next_page }) {
    replace(
      more,
      next_page && shown < 200
        ? button("Show more", () => ((shown = Math.min(200, shown * 4)), loadDeliveries()))
        : null,
    );
    if (found.length) return rows(found);
    return empty(
      "Nothing was delivered",
      state.value ? "No delivery is in this state." : "Test the trigger to see what it would do about an event.",
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
          (delivery) => [
            delivery.run_id
              ? runLink(delivery.run_id, { dataset: { rowLink: "" } })
              : h("span", { class: "muted" }, delivery.error?.message ?? delivery.reason ?? "–"),
            delivery.earlier_run_ids?.length
              ? h("div", { class: "earlier" }, "Before:", delivery.earlier_run_ids.toReversed().map((id) => runLink(id)))
              : null,
          ],
        ],
        ["Received", "when", (delivery) => ago(delivery.received_at)],
        [
          "",
          "row-actions",
          (delivery) =>
            !app.isReadOnly && AGAIN[delivery.state]
              ? button("Redeliver", () => AGAIN[delivery.state](delivery), { kind: "small" })
              : null,
        ],
      ],
      found,
    );

  const runLink = (run_id, props) =>
    h("a", { href: `#/runs/${encodeURIComponent(run_id)}`, ...props }, h("code", {}, run_id));

  async function again(delivery) {
    try {
      await redeliver(delivery);
    } catch (error) {
      failed(error);
    }
  }

  const another = ({ run_id, ...delivery }) =>
    confirm(
      "Deliver it again?",
      `It started ${run_id ?? "a run"}. Delivered again, it starts another run, by the trigger as it is now.`,
      "Start another run",
      () => redeliver(delivery),
    );

  /** What is done again, by the state of the delivery; one that waits is looked at anyway. */
  const AGAIN = { failed: again, filtered: again, started: another };

  async function redeliver({ delivery_id }) {
    await api.redeliver(delivery_id);
    done("It is looked at again.");
    await loadDeliveries();
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

  async function test({ handler }) {
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
      tell(answer, handler);
      await loadDeliveries();
    }
  }

  function tell(answer, handler) {
    const would = handler ? "Its function decides" : "It would start a run";
    formDialog(
      answer.starts ? (answer.delivery ? "It was delivered" : would) : "Nothing would start",
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
  live.follow(load, REFRESH_MS, signal, ({ types }) => types.some((type) => type.startsWith("trigger.")));
  load();
  loadDeliveries();
  return { element: page, title: id };
}
