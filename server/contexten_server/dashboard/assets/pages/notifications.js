// Who is told of runs, and the messages to them.

import { number } from "../run/format.js";
import { confirm, dialog, done, failed, formDialog } from "../ui/dialogs.js";
import {
  badge,
  button,
  card,
  copyable,
  empty,
  field,
  h,
  iconButton,
  pageHead,
  replace,
  select,
} from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago } from "../ui/times.js";

const REFRESH_MS = 1000;
const EVENTS = [
  ["run.failed", "Failed"],
  ["run.completed", "Completed"],
  ["run.cancelled", "Cancelled"],
  ["run.running", "Started"],
  ["run.paused", "Paused"],
  ["run.deadline_missed", "Deadline missed"],
];
const STATES = [
  ["", "All states"],
  ["dead", "Given up"],
  ["pending", "Pending"],
  ["sending", "Sending"],
  ["sent", "Sent"],
];
const WORDS = Object.fromEntries(STATES);

export function open({ app, api, live, signal }) {
  const list = h("div", {});
  const dispatches = h("div", {});
  const state = select(STATES, "", { "aria-label": "State of the messages", class: "short" });
  state.addEventListener("change", () => loadDispatches());
  let names = new Map();

  const loadList = latest(list, {
    ask: () => api.notifications({ limit: 200 }),
    show({ notifications }) {
      names = new Map(notifications.map((one) => [one.notification_id, one.name]));
      replace(list, notifications.length ? rows(notifications) : nothing());
    },
    signal,
  });
  const loadDispatches = latest(dispatches, {
    ask: () => api.dispatches({ state: state.value, limit: 50 }),
    show: showDispatches,
    signal,
  });
  const load = () => loadList().then(loadDispatches); // messages are told with their receivers' names

  const nothing = () =>
    empty(
      "Nobody is told yet",
      "A notification sends a signed message to a webhook, or one to Slack, when a run fails or ends. What cannot be delivered is tried again for about a day.",
      ...(app.isReadOnly ? [] : [button("Create a notification", create, { kind: "primary", symbol: "plus" })]),
    );

  const rows = (notifications) =>
    table(
      "Notifications",
      [
        [
          "Receiver",
          "",
          (one) => [
            h("strong", {}, one.name),
            h("div", { class: "ids" }, one.url ?? (one.secret_name ? `secret ${one.secret_name}` : "")),
          ],
        ],
        ["Kind", "", (one) => (one.kind === "slack" ? "Slack" : "Webhook")],
        ["Told of", "wide", (one) => one.events.map((event) => h("span", { class: "tag" }, event))],
        ["Of", "", (one) => one.flow_id ?? (one.tag ? `tag ${one.tag}` : "all runs")],
        [
          "State",
          "",
          (one) =>
            one.enabled ? badge("completed", "On") : h("span", { title: one.disabled }, badge("failed", "Off")),
        ],
        ["Waiting", "numeric", (one) => number(one.pending)],
        ["Given up", "numeric", (one) => number(one.dead)],
        [
          "",
          "row-actions",
          (one) =>
            app.isReadOnly
              ? null
              : [
                  button(one.enabled ? "Switch off" : "Switch on", () => toggle(one), { kind: "small" }),
                  button("Test", () => test(one), { kind: "small" }),
                  iconButton("trash", `Delete ${one.name}`, () => remove(one)),
                ],
        ],
      ],
      notifications,
    );

  function showDispatches({ dispatches: found }) {
    replace(
      dispatches,
      found.length
        ? table(
            "Messages, newest first",
            [
              ["State", "state", (one) => badge(one.state, WORDS[one.state])],
              [
                "Of",
                "wide",
                (one) => [
                  h("code", {}, one.type),
                  h("div", { class: "ids" }, h("a", { href: `#/runs/${encodeURIComponent(one.run_id)}` }, one.run_id)),
                ],
              ],
              ["To", "", (one) => names.get(one.notification_id) ?? one.kind],
              ["Tries", "numeric", (one) => number(one.attempts)],
              [
                "Last answer",
                "wide",
                (one) => h("span", { class: "muted" }, one.error ?? (one.status ? `${one.status}` : "–")),
              ],
              ["Next try", "when", (one) => ago(one.next_attempt_at) ?? "–"],
              ["Happened", "when", (one) => ago(one.happened_at)],
              [
                "",
                "row-actions",
                (one) =>
                  !app.isReadOnly && ["dead", "pending"].includes(one.state)
                    ? button("Retry", () => again(one), { kind: "small" })
                    : null,
              ],
            ],
            found,
          )
        : h("p", { class: "muted" }, state.value === "dead" ? "No message was given up." : "No messages."),
    );
  }

  async function create() {
    const kind = select(
      [
        ["webhook", "Webhook"],
        ["slack", "Slack"],
      ],
      "webhook",
    );
    const url = h("input", { type: "url", spellcheck: "false", placeholder: "https://example.com/hook" });
    const secret = h("input", { type: "text", spellcheck: "false", autocomplete: "off" });
    const flow = h("input", { type: "text", spellcheck: "false" });
    const tag = h("input", { type: "text", spellcheck: "false" });
    const name = h("input", { type: "text", maxlength: 200 });
    const events = EVENTS.map(([event, label]) => [
      event,
      h("input", { type: "checkbox", checked: event === "run.failed" }),
      label,
    ]);
    const address = field("Address", url, "Messages are posted here");
    const secretField = h("div", {});
    const show = () => {
      const isSlack = kind.value === "slack";
      address.hidden = isSlack;
      replace(
        secretField,
        field(
          "Secret",
          secret,
          isSlack
            ? "The name in the server's setting `secrets` of Slack's incoming-webhook address"
            : "A name in the server's setting `secrets`. Left out: a secret is made, and shown once",
        ),
      );
    };
    kind.addEventListener("change", show);
    show();
    const created = await formDialog(
      "New notification",
      [
        field("Kind", kind),
        address,
        secretField,
        h(
          "fieldset",
          { class: "checks" },
          h("legend", {}, "Told of runs that"),
          events.map(([, input, label]) => h("label", { class: "check" }, input, label)),
        ),
        h(
          "details",
          { class: "more" },
          h("summary", {}, "Only some runs; name"),
          h("div", { class: "fields" }, field("Flow id", flow), field("Tag", tag), field("Name", name)),
        ),
      ],
      {
        label: "Create",
        submit: () =>
          api.createNotification({
            kind: kind.value,
            events: events.filter(([, input]) => input.checked).map(([event]) => event),
            ...(kind.value === "webhook" && { url: url.value.trim() }),
            ...(secret.value.trim() && { secret: secret.value.trim() }),
            ...(flow.value.trim() && { flow_id: flow.value.trim() }),
            ...(tag.value.trim() && { tag: tag.value.trim() }),
            ...(name.value.trim() && { name: name.value.trim() }),
          }),
      },
    );
    if (created?.secret) {
      await dialog("The notification is there", (close) => [
        h(
          "div",
          { class: "secret" },
          h("strong", {}, "Its secret, shown this once"),
          copyable(created.secret, "secret"),
        ),
        h("p", { class: "muted" }, "The receiver checks the signature of messages with it (Standard Webhooks)."),
        h(
          "footer",
          {},
          button("Done", () => close(true), { kind: "primary" }),
        ),
      ]);
    }
    if (created) await load();
  }

  async function test(one) {
    try {
      const answer = await api.testNotification(one.notification_id);
      if (answer.ok) done(`The receiver took the message${answer.status ? ` (${answer.status})` : ""}.`);
      else
        failed({
          message: "The receiver did not take the message.",
          next: answer.error ?? `It answered ${answer.status}.`,
        });
    } catch (error) {
      failed(error);
    }
  }

  async function toggle(one) {
    try {
      await api.updateNotification(one.notification_id, { enabled: !one.enabled });
      await load();
    } catch (error) {
      failed(error);
    }
  }

  async function remove(one) {
    if (
      await confirm(
        `Delete ${one.name}?`,
        "Nothing more is sent to it, not even what waits.",
        "Delete the notification",
        () => api.deleteNotification(one.notification_id),
      )
    )
      await load();
  }

  async function again(one) {
    try {
      await api.retryDispatch(one.dispatch_id);
      await loadDispatches();
    } catch (error) {
      failed(error);
    }
  }

  live.follow(load, REFRESH_MS, signal);
  load();
  return {
    title: "Notifications",
    element: h(
      "div",
      { class: "page" },
      pageHead("Notifications", {
        lead: "Who is told of runs.",
        actions: app.isReadOnly ? [] : [button("New notification", create, { kind: "primary", symbol: "plus" })],
      }),
      list,
      card(["Messages", state], dispatches),
    ),
  };
}
