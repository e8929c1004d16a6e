// What a person does to a run, asked first where it cannot be taken back.

import { h, replace } from "./dom.js";
import { isEnded } from "./format.js";

const ASKED = {
  cancel: {
    title: "Cancel this run?",
    text: "Attempts under way are stopped and nothing of it runs again. This cannot be undone; a retry makes a new run.",
    label: "Cancel the run",
    danger: true,
  },
  retry: {
    title: "Retry this run?",
    text: "A new run keeps the recorded outputs of completed tasks and runs the rest.",
    label: "Retry",
  },
  rerun_from: {
    title: "Run again from here?",
    text: "A new run does this task and all that depends on it once more, and keeps the other outputs.",
    label: "Run again",
  },
};

/** What a run's state (with what it was asked for: see RunRecord) allows to do to it, as [action, word]. */
export function actionsFor(run, state) {
  if (run.parent_run_id || state === "cancelling") return [];
  if (state === "paused") return [["resume", WORDS.resume], ["cancel", WORDS.cancel]];
  if (state === "pausing") return [["resume", "Don't pause"], ["cancel", WORDS.cancel]];
  if (state === "failed" || state === "cancelled") return [["retry", WORDS.retry]];
  return isEnded(state) ? [] : [["pause", WORDS.pause], ["cancel", WORDS.cancel]];
}

/** A button's word for an action. */
export const WORDS = { cancel: "Cancel", pause: "Pause", resume: "Resume", retry: "Retry", rerun_from: "Run again from here" };

/** A place for questions: `ask(action, {task, version})` answers `{reason}`, or null where the person thought better of it. */
export function createQuestions() {
  const element = h("dialog", { class: "cf-dialog", "aria-labelledby": "cf-dialog-title" });
  const ask = (action, { task, version }) => {
    const asked = ASKED[action];
    if (!asked) return Promise.resolve({});
    const reason = h("input", { class: "cf-field", maxlength: "1000", placeholder: "Why? (kept in the run's record)", "aria-label": "Reason" });
    const { promise, resolve } = withResolvers();
    element.returnValue = "";
    element.onclose = () => resolve(element.returnValue === "yes" ? { reason: reason.value.trim() || undefined } : null);
    replace(
      element,
      // No form: a page in a host's sandbox may not submit one.
      h(
        "div",
        {
          class: "cf-question",
          onkeydown: (event) => {
            if (event.key !== "Enter" || event.target !== reason) return;
            event.preventDefault(); // else the same key presses the button that gets the focus back
            element.close("yes");
          },
        },
        h("h2", { id: "cf-dialog-title" }, asked.title),
        task ? h("p", {}, h("code", {}, task)) : null,
        version ? h("p", {}, `With version ${version} of the flow.`) : null,
        h("p", {}, asked.text),
        reason,
        h(
          "div",
          { class: "cf-dialog-buttons" },
          h("button", { type: "button", class: "cf-button", onclick: () => element.close("no") }, "Leave it"),
          h("button", { type: "button", class: asked.danger ? "cf-button cf-danger" : "cf-button cf-primary", onclick: () => element.close("yes") }, asked.label),
        ),
      ),
    );
    element.showModal();
    reason.focus();
    return promise;
  };
  return { element, ask };
}

function withResolvers() {
  let resolve;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}
