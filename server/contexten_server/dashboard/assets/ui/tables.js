// Rows: tables that are made anew, and lists whose rows stay.

import { h } from "../run/dom.js";

/**
 * Show `items` in `parent`, one child each, and leave those that stay in place: what has the focus keeps it.
 * `make(item)` gives a new child with an `update(item)` of its own.
 */
export function keyed(parent, items, key, make) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = known.get(name);
    known.delete(name);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = name;
    } else {
      child.update(item);
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

/**
 * A table: `columns` are [title, class, make(item)]; what has no title holds actions. Rows are made anew each time. On a
 * narrow screen each row becomes a card: the first column heads it, one of class "wide" takes its whole width.
 */
export function table(caption, columns, items) {
  return h(
    "div",
    { class: "table-frame", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: "table" },
      h("caption", { class: "visually-hidden" }, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map(([title, style]) =>
            h("th", { scope: "col", class: style }, title || h("span", { class: "visually-hidden" }, "Actions")),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        items.map((item) =>
          h(
            "tr",
            {},
            columns.map(([title, style, make]) => h("td", { class: style, dataset: { label: title } }, make(item))),
          ),
        ),
      ),
    ),
  );
}
