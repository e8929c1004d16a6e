// The dialog that makes a trigger, with the fields that its kind needs.

import { dialog, formDialog } from "./dialogs.js";
import { badge, button, copyable, field, h, replace, say, select } from "./elements.js";
import { parseJson } from "./json_text.js";
import { schemaForm } from "./schema_form.js";

const LABELS = { github: "GitHub" };

const words = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ").replace(/ s$/, ", seconds");

const unmarked = (text) => text?.replaceAll("`", "");

/** A kind's config as a schema for people: what only this kind is told comes before what all are, on a line each. */
function forPeople(kinds, kind) {
  const isShared = (name) => Object.values(kinds).every(({ properties }) => name in properties);
  const entries = Object.entries(kinds[kind].properties).map(([name, { maxLength, ...one }]) => [
    name,
    { ...one, title: words(name), description: unmarked(one.description) },
  ]);
  const own = entries.filter(([name]) => !isShared(name));
  return { ...kinds[kind], properties: Object.fromEntries([...own, ...entries.filter(([name]) => isShared(name))]) };
}

/** A kind of trigger as a word. */
export const kindLabel = (kind) => LABELS[kind] ?? words(kind);

/** Whether nothing becomes of a trigger that is on, since no program that runs has its function. */
export const isUnhandled = ({ enabled, handled }) => enabled && handled === false;

/** How a trigger stands. */
export function triggerState(trigger) {
  if (isUnhandled(trigger)) return badge("waiting", "Nobody handles it");
  return trigger.enabled ? badge("completed", "On") : badge("cancelled", "Off");
}

/**
 * Ask for a trigger and make it; shows what its sender must be told, and what may not be meant so. Resolves with it, or with null; where `signal` has
 * aborted nothing is asked.
 */
export async function createTrigger({ api, flow_id, signal }) {
  const [{ flows }, kinds] = await Promise.all([api.flows({ limit: 200 }), api.triggerKinds()]);
  if (signal.aborted) return null;
  const flow = h("input", {
    type: "text",
    value: flow_id ?? "",
    list: "trigger-flows",
    spellcheck: "false",
    autocomplete: "off",
    required: true,
  });
  const kind = select(
    Object.keys(kinds).map((key) => [key, kindLabel(key)]),
    "cron",
  );
  const what = h("p", { class: "hint" });
  const name = h("input", { type: "text", maxlength: 200 });
  const filter = h("input", {
    type: "text",
    class: "code-input",
    spellcheck: "false",
    maxlength: 4000,
    placeholder: 'event.payload.action == "opened"',
  });
  const inputs = h("textarea", {
    rows: 3,
    class: "code-input",
    spellcheck: "false",
    placeholder: '{"title": "{{ event.payload.title }}"}',
  });
  const place = h("div", {});
  let config;
  const show = () => {
    config = schemaForm(forPeople(kinds, kind.value));
    say(what, unmarked(kinds[kind.value].description));
    replace(place, config.element);
  };
  kind.addEventListener("change", show);
  show();
  const created = await formDialog(
    "New trigger",
    [
      field("Flow *", flow, "The flow that it starts"),
      h(
        "datalist",
        { id: "trigger-flows" },
        flows.map((one) => h("option", { value: one.flow_id }, one.name)),
      ),
      h("div", {}, field("Kind", kind), what),
      place,
      h(
        "details",
        { class: "more" },
        h("summary", {}, "Filter, inputs and name"),
        h(
          "div",
          { class: "schema-form" },
          field("Filter", filter, "CEL over event: nothing starts where it is false"),
          field("Inputs (JSON)", inputs, "The flow's inputs, as templates over event"),
          field("Name", name),
        ),
      ),
    ],
    {
      label: "Create",
      size: "large",
      submit: () =>
        api.createTrigger({
          flow_id: flow.value.trim(),
          kind: kind.value,
          config: config.value(),
          ...(filter.value.trim() && { filter: filter.value.trim() }),
          ...(inputs.value.trim() && { inputs: parseJson(inputs.value, "inputs") }),
          ...(name.value.trim() && { name: name.value.trim() }),
        }),
    },
  );
  if (created?.url || created?.warnings) await tell(created);
  return created;
}

function tell({ url, secret, next, warnings = [] }) {
  return dialog("The trigger is there", (close) => [
    url
      ? h(
          "div",
          { class: "field" },
          h("strong", {}, "Its sender posts to"),
          copyable(`${new URL(`.${url}`, document.baseURI)}`, "address"),
        )
      : null,
    secret
      ? h("div", { class: "secret" }, h("strong", {}, "Its secret, shown this once"), copyable(secret, "secret"))
      : null,
    url && next ? h("p", { class: "muted" }, next) : null,
    h(
      "ul",
      { class: "findings", "aria-label": "Warnings" },
      warnings.map(({ path, message }) =>
        h("li", { class: "finding", dataset: { kind: "warning" } }, h("code", {}, path), h("p", {}, message)),
      ),
    ),
    h(
      "footer",
      {},
      button("Done", () => close(true), { kind: "primary" }),
    ),
  ]);
}
