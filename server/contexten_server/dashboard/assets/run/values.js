// JSON values on the page: fetched when asked for, long ones cut, with a way to keep the whole.

import { h, replace } from "./dom.js";
import { bytes, pretty } from "./format.js";

const MOST_CHARS = 20_000;

/**
 * A value that is fetched when it is opened: `load()` gives it, `name` is the file it is kept as, `keep(name, text)` keeps
 * it (null: that cannot be done here).
 */
export function createValue(label, load, { name, keep, hint = "" }) {
  const body = h("div", { class: "cf-value-body" });
  let isAsked = false;
  const open = async () => {
    if (isAsked) return;
    isAsked = true;
    replace(body, h("p", { class: "cf-quiet", role: "status" }, "Loading…"));
    try {
      show(body, pretty(await load()), name, keep);
    } catch (error) {
      isAsked = false;
      replace(body, h("p", { class: "cf-quiet", role: "status" }, error.message));
    }
  };
  return h(
    "details",
    { class: "cf-value", ontoggle: (event) => event.currentTarget.open && open() },
    h("summary", {}, label, hint ? h("span", { class: "cf-quiet" }, ` ${hint}`) : null),
    body,
  );
}

function show(body, text, name, keep) {
  const isLong = text.length > MOST_CHARS;
  replace(
    body,
    h("pre", { class: "cf-code", tabindex: "0" }, isLong ? `${text.slice(0, MOST_CHARS)}\n…` : text),
    isLong ? h("p", { class: "cf-quiet" }, `The first ${bytes(MOST_CHARS)} of ${bytes(text.length)}.`) : null,
    keep ? h("button", { type: "button", class: "cf-button", onclick: () => keep(`${name}.json`, text) }, "Download") : null,
  );
}
