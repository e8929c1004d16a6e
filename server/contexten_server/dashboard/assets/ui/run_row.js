// A run as a row of the list. It is changed in place as the run goes on.

import { badge, h, progress, replace, say, setBadge, setProgress } from "./elements.js";
import { ago, lasting } from "./times.js";

/** A row with `update(run)`; `act(run)` gives the button of what can be done, or null. */
export function runRow(run, act) {
  const state = badge(run.state);
  const name = h("a", {
    href: `#/runs/${encodeURIComponent(run.run_id)}`,
    dataset: { rowLink: "" },
    class: "row-link",
  });
  const ids = h("span", { class: "ids" });
  const bar = progress(run);
  const started = h("td", { class: "when" });
  const time = h("span", {});
  const actions = h("td", { class: "row-actions" });
  const element = h(
    "tr",
    { dataset: { run: run.run_id } },
    h("td", { class: "state" }, state),
    h("td", { class: "name" }, name, ids),
    h("td", { class: "how-far" }, bar),
    started,
    h("td", { class: "lasts" }, time),
    actions,
  );
  element.update = (now) => {
    setBadge(state, now.state);
    say(name, now.name || now.flow_id);
    const why = now.error?.message ?? now.note ?? now.reason ?? (now.held_by ? `held by ${now.held_by}` : "");
    const text = `${now.run_id}\n${now.flow_id}\n${why}`;
    if (ids.dataset.text !== text) {
      ids.dataset.text = text;
      replace(
        ids,
        h("code", {}, now.run_id),
        h("span", { class: "of" }, now.flow_id),
        why ? h("span", { class: "why", title: why }, why) : null,
      );
    }
    setProgress(bar, now);
    const began = now.started_at ?? now.created_at;
    if (started.dataset.began !== `${began}`) {
      started.dataset.began = `${began}`;
      replace(started, ago(began));
    }
    lasting(time, now);
    if (actions.dataset.for !== now.state) {
      actions.dataset.for = now.state;
      const had = actions.contains(document.activeElement);
      replace(actions, act(now));
      if (had) actions.querySelector("button")?.focus();
    }
  };
  element.update(run);
  return element;
}
