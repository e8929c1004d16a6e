// Dialogs and messages. A <dialog> keeps the focus within it and gives it back; Escape closes it.

import { button, field, h, iconButton, problem, replace, say } from "./elements.js";

/**
 * Ask something. `build(close)` gives the content; resolves with what `close(value)` was called with, or null.
 */
export function dialog(title, build, { size = "" } = {}) {
  return new Promise((resolve) => {
    let answer = null;
    const element = h("dialog", { class: `dialog ${size}`, "aria-label": title });
    const close = (value = null) => {
      answer = value;
      element.close();
    };
    element.append(
      h(
        "header",
        {},
        h("h2", {}, title),
        iconButton("close", "Close", () => close()),
      ),
      h("div", { class: "dialog-body" }, build(close)),
    );
    element.addEventListener("close", () => {
      element.remove();
      resolve(answer);
    });
    element.addEventListener("mousedown", (event) => event.target === element && close());
    document.body.append(element);
    element.showModal();
    (
      element.querySelector("[autofocus]") ?? element.querySelector("input, select, textarea, .dialog-body button")
    )?.focus();
  });
}

/**
 * A form in a dialog. `submit()` does the work and gives what the dialog resolves with; where it raises, the dialog
 * stays and shows why.
 */
export function formDialog(title, fields, { submit, label, kind = "primary", size }) {
  return dialog(
    title,
    (close) => {
      const told = h("div", {});
      const go = h("button", { type: "submit", class: `button ${kind}` }, label);
      const onsubmit = async (event) => {
        event.preventDefault();
        go.disabled = true;
        replace(told);
        try {
          close((await submit()) ?? true);
        } catch (error) {
          replace(told, problem(error));
        } finally {
          go.disabled = false;
        }
      };
      return h(
        "form",
        { onsubmit, novalidate: true },
        fields,
        told,
        h(
          "footer",
          {},
          button("Cancel", () => close()),
          go,
        ),
      );
    },
    { size },
  );
}

/** Ask whether to do something that cannot be undone. Resolves with true, or null. */
export function confirm(title, text, label, submit) {
  return formDialog(title, [h("p", {}, text)], { submit, label, kind: "danger" });
}

const SIGN_IN = "Sign in";

/** Close what is open, as Escape does; only the question for the token stays, since the next page needs it too. */
export function closeDialogs() {
  for (const element of document.querySelectorAll("dialog[open]")) {
    if (element.getAttribute("aria-label") !== SIGN_IN) element.close();
  }
}

/** Ask for the bearer token. */
export function askToken(reason) {
  const input = h("input", {
    type: "password",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    autofocus: true,
  });
  return dialog(SIGN_IN, (close) =>
    h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          if (input.value.trim()) close(input.value.trim());
        },
      },
      h(
        "p",
        {},
        "This server wants a bearer token: one of those in its setting CONTEXTEN_FLOW_TOKENS, or an access token.",
      ),
      reason ? problem({ message: reason }) : null,
      h("input", { type: "text", autocomplete: "username", value: "token", hidden: true }), // managers of passwords want one
      field("Token", input, "It is kept in this tab only, until the tab is closed."),
      h("footer", {}, h("button", { type: "submit", class: "button primary" }, "Continue")),
    ),
  );
}

const SHOWN_MS = 6000;

function region() {
  let element = document.getElementById("messages");
  const modal = [...document.querySelectorAll("dialog[open]")].at(-1);
  if (modal) {
    element = modal.querySelector(".messages") ?? modal.appendChild(h("div", { class: "messages" }));
  }
  return element;
}

/** Show a message; one that says the same gives way to it. */
function show(element, lasts_ms) {
  const place = region();
  for (const other of place.children) if (other.textContent === element.textContent) other.remove();
  const close = iconButton("close", "Dismiss", () => element.remove());
  element.append(close);
  place.append(element);
  if (lasts_ms) setTimeout(() => element.remove(), lasts_ms);
}

/** Tell that something was done. */
export function done(text, href, link) {
  show(
    h("div", { class: "message done", role: "status" }, h("p", {}, text, " ", href ? h("a", { href }, link) : null)),
    SHOWN_MS,
  );
}

/** Tell that something went wrong, until it is dismissed. */
export function failed(error) {
  if (error.name === "AbortError") return;
  show(h("div", { class: "message failed" }, problem(error)), error.code === "unreachable" ? SHOWN_MS : 0);
}

/** Tell screen readers only. */
export function announce(text) {
  say(document.getElementById("announcer"), text);
}
