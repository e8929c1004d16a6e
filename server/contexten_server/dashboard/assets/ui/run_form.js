// The dialog that starts a run.

import { field, h, select } from "./elements.js";
import { done, formDialog } from "./dialogs.js";
import { schemaForm } from "./schema_form.js";

const PRIORITIES = [
  ["critical", "Critical"],
  ["high", "High"],
  ["normal", "Normal"],
  ["low", "Low"],
  ["background", "Background"],
];

/** Start the flow of a run once more, with that run's inputs to begin with. */
export async function runAgain({ api, go }, { run_id, flow_id }) {
  const { inputs } = await api.run(run_id, { detail: "definition" });
  await runFlow({ api, go, flow_id, inputs });
}

/** Ask for inputs and start the flow; goes to the run's page. */
export async function runFlow({ api, go, flow_id, inputs = {} }) {
  const [flow, { engines }] = await Promise.all([api.flow(flow_id), api.agents()]);
  const schema = flow.definition?.inputs;
  const form = schemaForm(schema, inputs);
  const priority = select(PRIORITIES, "normal");
  const framework = select(
    [["", "As usual"], ...engines.filter(({ available }) => available).map(({ name }) => name)],
    "",
  );
  const deadline = h("input", { type: "datetime-local", step: "1" });
  const timeout = h("input", { type: "number", min: "0", step: "any" });
  const dependencies = h("input", { type: "text", spellcheck: "false" });
  const key = h("input", { type: "text", spellcheck: "false", maxlength: 200 });
  const run = await formDialog(
    `Run ${flow.name}`,
    [
      form.element,
      h(
        "details",
        { class: "more" },
        h("summary", {}, "More options"),
        h(
          "div",
          { class: "fields" },
          field("Priority", priority),
          field("Engine", framework),
          field("Deadline", deadline, "Your local time"),
          field("Time limit, seconds", timeout),
          field("After runs or flows", dependencies, "Ids, separated by commas"),
          field("Idempotency key", key, "The same key answers the same run"),
        ),
      ),
    ],
    {
      label: "Run",
      submit: () =>
        api.startRun({
          flow_id,
          inputs: form.value(),
          priority: priority.value,
          ...(framework.value && { framework: framework.value }),
          ...(deadline.value && { deadline: new Date(deadline.value).toISOString() }),
          ...(timeout.value && { timeout_s: Number(timeout.value) }),
          ...(dependencies.value.trim() && {
            dependencies: dependencies.value
              .split(",")
              .map((one) => one.trim())
              .filter(Boolean),
          }),
          ...(key.value.trim() && { idempotency_key: key.value.trim() }),
        }),
    },
  );
  if (run === null) return;
  if (run.existing) done("This run was asked for before; here it is.");
  go(`runs/${encodeURIComponent(run.run_id)}`);
}
