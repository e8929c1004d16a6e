// Keys: they do nothing while a field has the focus or a dialog is open, and can be turned off.

import { h } from "./elements.js";

const OFF = "contexten-flow.shortcuts-off";
const CHORD_MS = 1200;

const isTyping = (element) => element?.matches?.("input, select, textarea, [contenteditable]") ?? false;

export function installShortcuts({ places, go, toggleTheme, dialog }) {
  let chord = 0;

  function help() {
    const isOn = () => localStorage.getItem(OFF) === null;
    const keys = [
      ["/", "Search"],
      ["j, k", "Next, previous row"],
      ["n", "New flow"],
      ...places.map(({ key, label }) => [`g ${key}`, label]),
      ["d", "Dark or light"],
      ["?", "This help"],
    ];
    const toggle = h("input", {
      type: "checkbox",
      checked: isOn(),
      onchange: ({ target }) => (target.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")),
    });
    dialog("Keyboard shortcuts", () => [
      h(
        "dl",
        { class: "keys" },
        keys.map(([key, what]) =>
          h(
            "div",
            {},
            h(
              "dt",
              {},
              key.split(" ").map((part) => h("kbd", {}, part)),
            ),
            h("dd", {}, what),
          ),
        ),
      ),
      h("label", { class: "check" }, toggle, "Shortcuts of one key are on"),
    ]);
  }

  const step = (by) => {
    const links = [...document.querySelectorAll("main [data-row-link]")];
    const here = links.indexOf(document.activeElement.closest?.("[data-row-link]"));
    links[Math.min(links.length - 1, Math.max(0, here + by))]?.focus();
  };

  const single = {
    "/": () => document.querySelector("main input[type=search]")?.focus(),
    "?": help,
    j: () => step(1),
    k: () => step(-1),
    n: () => go("create"),
    d: toggleTheme,
    g: () => (chord = performance.now()),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape" && event.target.matches?.("input[type=search]")) event.target.blur();
    if (isTyping(event.target) || document.querySelector("dialog[open]") || localStorage.getItem(OFF)) return;
    const place = performance.now() - chord < CHORD_MS && places.find(({ key }) => key === event.key);
    chord = 0;
    if (place) go(place.path);
    else if (single[event.key]) single[event.key]();
    else return;
    event.preventDefault();
  });

  return { help };
}
