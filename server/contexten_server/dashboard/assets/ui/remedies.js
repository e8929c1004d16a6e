// What may mend a failed run, for people: the server tells it as calls of its tools, for agents.

import { h } from "../run/dom.js";
import { duration } from "../run/format.js";

const ARGUMENT = /\b(\w+)=(?:'([^'\\]*)'|"([^"\\]*)"|([\d.]+))/g;
const PATCH = /'path': '([^'\\]*)', 'value': (.*?)\}\]\)/;
const WARNING = /\)  # warning: (.*)$/;

/**
 * A list of children for each call, in their order: a button or link where there is one, else words. What cannot be done
 * here, or is not understood, is left out. `view` is the run's, with act(action, options) and showEvents(task).
 */
export function remedies(calls, view, { canAct }) {
  const can = { ...(canAct ? CHANGES : {}), ...LOOKS };
  let isEdited = false; // by a call before
  const ways = [];
  for (const call of calls) {
    const [name] = call.split("(");
    const found = [...call.matchAll(ARGUMENT)];
    const given = Object.fromEntries(found.map(([, key, one, other, figure]) => [key, one ?? other ?? Number(figure)]));
    ways.push(Object.hasOwn(can, name) ? can[name]({ call, given, view, isEdited }) : null);
    isEdited ||= name === "update_flow";
  }
  return ways.filter(Boolean);
}

const button = (label, onclick) => h("button", { type: "button", class: "cf-button", onclick }, label);
const link = (label, href) => h("a", { class: "cf-button", href }, label);

const LOOKS = {
  explain_flow: ({ given: { run_id } }) =>
    run_id ? [link("See the run that failed within it", `#/runs/${encodeURIComponent(run_id)}`)] : null,
  get_flow_status: ({ given: { detail, task = "" }, view }) =>
    detail === "events" ? [button("See its events", () => view.showEvents(task))] : null,
};

const CHANGES = {
  update_flow({ call, given: { flow_id } }) {
    const [, path, value] = PATCH.exec(call) ?? [];
    if (!flow_id) return null;
    const address = `#/create?${new URLSearchParams({ flow: flow_id, ...(path && { at: path }) })}`;
    const [, warning] = WARNING.exec(call) ?? [];
    return [
      link("Edit the flow", address),
      path ? [" at ", h("code", {}, path)] : null,
      value && value !== "..." ? [", such as ", h("code", {}, value.replaceAll("'", '"'))] : null,
      warning ? `; ${warning}` : null,
    ].flat();
  },
  control_flow({ given: { action, version, timeout_s }, view, isEdited }) {
    if (action !== "retry") return null;
    if (version && isEdited) return ["When that is saved, come back and retry with the new version."];
    const options = { ...(version && { version }), ...(timeout_s && { timeout_s }) };
    const changed = [version && `version ${version}`, timeout_s && `a time limit of ${duration(timeout_s)}`].filter(Boolean);
    const label = changed.length ? `Retry with ${changed.join(" and ")}` : "Retry";
    return [button(label, () => view.act("retry", options))];
  },
};
