// Small parts that pages are put together from.

import { h, replace, say } from "../run/dom.js";
import { colour, written } from "./json_text.js";
import { number, stateLabel, stateMark } from "../run/format.js";

const ICONS = {
  runs: "M4 6h16M4 12h16M4 18h10",
  flows: "M6 4v6a4 4 0 0 0 4 4h4a4 4 0 0 1 4 4v2M6 4 3.5 6.5M6 4l2.5 2.5M18 20l-2.5-2.5M18 20l2.5-2.5",
  queue: "M5 5h14v4H5zM5 12h14M5 16h14M5 20h9",
  agents: "M7 9h10v9H7zM12 9V5M9.5 13h.01M14.5 13h.01M4 13v2M20 13v2",
  charts: "M4 20V4M4 20h16M8 16v-4M12 16V8M16 16v-6",
  triggers: "M13 3 5 14h6l-1 7 8-11h-6z",
  notifications: "M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15zM10 21h4",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.2 16.2 20 20",
  plus: "M12 5v14M5 12h14",
  play: "M8 5v14l11-7z",
  stop: "M7 7h10v10H7z",
  again: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  help: "M9.5 9.5a2.5 2.5 0 1 1 3.4 2.3c-.6.3-.9.8-.9 1.7M12 17h.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6 6 18",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  next: "M9 6l6 6-6 6",
  previous: "M15 6l-6 6 6 6",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
};

/** A drawing that goes with a text; screen readers pass over it. */
export function icon(name) {
  return h("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, h("path", { d: ICONS[name] }));
}

/** A state: a mark and a word, in the state's colour. */
export function badge(state, label = stateLabel(state)) {
  return h(
    "span",
    { class: "badge", dataset: { state } },
    h("span", { class: "mark", "aria-hidden": "true" }, stateMark(state)),
    h("span", { class: "word" }, label),
  );
}

/** Change a badge in place. */
export function setBadge(element, state, label = stateLabel(state)) {
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  say(element.querySelector(".mark"), stateMark(state));
  say(element.querySelector(".word"), label);
}

export function button(label, onclick, { kind = "", symbol, ...props } = {}) {
  return h(
    "button",
    { type: "button", class: `button ${kind}`, onclick, ...props },
    symbol && icon(symbol),
    h("span", {}, label),
  );
}

/** A button of which only the drawing is seen. */
export function iconButton(symbol, label, onclick, props = {}) {
  return h(
    "button",
    { type: "button", class: "button icon-only", "aria-label": label, title: label, onclick, ...props },
    icon(symbol),
  );
}

/** The head of a page: its name, which takes the focus when the page opens, and what can be done. */
export function pageHead(title, { lead, crumbs = [], actions = [] } = {}) {
  const heading = h("h1", { tabindex: "-1" }, title);
  const trail = crumbs.length
    ? h(
        "nav",
        { class: "crumbs", "aria-label": "Breadcrumb" },
        crumbs.map(([text, href]) => h("a", { href }, text)),
      )
    : null;
  return h(
    "header",
    { class: "page-head" },
    h("div", { class: "page-title" }, trail, heading, lead && h("p", { class: "lead" }, lead)),
    h("div", { class: "actions" }, actions),
  );
}

/** What stands where there is nothing: why, and the next step. */
export function empty(title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, title),
    h("p", {}, text),
    actions.length ? h("div", { class: "actions" }, actions) : null,
  );
}

/** The page of something that is not there: its kind as a word, the place of all of them, and why it may be gone. */
export function nothingThere(kind, id, place, why) {
  const all = [`See all ${place}`, `#/${place}`];
  document.title = "Not found · Contexten Flow";
  return [
    pageHead(`There is no such ${kind}`, { crumbs: [[place[0].toUpperCase() + place.slice(1), all[1]]] }),
    empty(id, why, h("a", { class: "button", href: all[1] }, all[0])),
  ];
}

/** A next step that an agent takes, by a call of a tool. */
const CALL = /\bcall\b|\b(?:control|create|delete|execute|explain|get|list|retry|set|test|update|wait_for)_[a-z]+/i;

/** An error with its issues and the next step, where that is one for people. */
export function problem(error, ...actions) {
  const issues = (error.issues ?? []).map((issue) =>
    h("li", {}, issue.path ? h("code", {}, issue.path) : null, " ", issue.message),
  );
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", {}, error.message),
    issues.length ? h("ul", {}, issues) : null,
    typeof error.next === "string" && !CALL.test(error.next) ? h("p", {}, error.next) : null,
    actions,
  );
}

/** A section with a heading; `title` may be [heading, what stands beside it]. */
export function card(title, ...children) {
  const [heading, ...beside] = [title].flat();
  return h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, heading), beside), children);
}

/** Terms and what they are; pairs whose value is absent are left out. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
  );
}

/** A number with its name. */
export function figure(name, value, note) {
  return h(
    "div",
    { class: "figure" },
    h("div", { class: "figure-name" }, name),
    h(
      "div",
      { class: `figure-value${String(value).length > 12 ? " is-text" : ""}` },
      typeof value === "number" ? number(value) : (value ?? "–"),
    ),
    note && h("div", { class: "figure-note" }, note),
  );
}

/** A field of a form with its label. */
export function field(label, control, hint) {
  const key = control.id || `f${++field.count}`;
  control.id = key;
  if (hint) control.setAttribute("aria-describedby", `${key}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: key }, label),
    control,
    hint && h("p", { class: "hint", id: `${key}-hint` }, hint),
  );
}
field.count = 0;

export function select(options, value, props = {}) {
  const element = h(
    "select",
    props,
    options.map((option) => {
      const [key, label] = Array.isArray(option) ? option : [option, option];
      return h("option", { value: key, selected: key === value }, label);
    }),
  );
  return element;
}

/** A bar that shows how far a run is. */
export function progress(run) {
  const bar = h("span", { class: "bar" }, h("span", { class: "fill" }));
  const text = h("span", { class: "count" });
  const element = h("span", { class: "progress" }, bar, text);
  setProgress(element, run);
  return element;
}

export function setProgress(element, { state, progress: { completed, total } }) {
  element.dataset.state = state;
  element.querySelector(".fill").style.setProperty("inline-size", `${total ? (100 * completed) / total : 0}%`);
  say(element.querySelector(".count"), `${completed}/${total}`);
}

/** JSON data, to read. */
export function code(value, label) {
  const text = typeof value === "string" ? value : written(value);
  const body = h("code", {});
  colour(body, text);
  return h("pre", { class: "code", tabindex: "0", role: "region", "aria-label": label ?? "JSON" }, body);
}

/** Text that is copied with a button beside it. */
export function copyable(text, label) {
  const told = h("span", { class: "visually-hidden", role: "status" });
  const shown = h("code", {}, text);
  const act = iconButton("copy", `Copy ${label}`, async () => {
    try {
      await navigator.clipboard.writeText(text);
      say(told, `${label} copied`);
    } catch {
      // Over plain HTTP there is no clipboard for scripts.
      getSelection().selectAllChildren(shown);
      say(told, `${label} selected: copy it with the keyboard`);
    }
  });
  return h("span", { class: "copyable" }, shown, act, told);
}

export { h, replace, say };
