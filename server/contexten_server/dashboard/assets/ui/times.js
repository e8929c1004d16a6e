// Times and durations, those that go on counting too.

import { h, say } from "../run/dom.js";
import { clockTime, duration, fullTime, instant, relativeTime } from "../run/format.js";

/** How long ago; it goes on counting. */
export function ago(iso) {
  if (!iso) return null;
  return h("time", { datetime: iso, title: `${fullTime(iso)}`, dataset: { ago: iso } }, relativeTime(iso));
}

/** The moment itself. */
export function at(iso) {
  return iso ? h("time", { datetime: iso, title: fullTime(iso) }, clockTime(iso)) : null;
}

/** A run's duration, counting while it is under way. */
export function lasting(element, { started_at, ended_at, duration_s, state }) {
  const counts = state === "running" && started_at && !ended_at;
  if (counts) element.dataset.since = started_at;
  else delete element.dataset.since;
  say(
    element,
    counts ? duration(Math.max(0, (Date.now() - instant(started_at)) / 1000)) : started_at ? duration(duration_s) : "–",
  );
  return element;
}

/** Keep times that count up to date. */
export function keepTime() {
  setInterval(() => {
    if (document.visibilityState !== "visible") return;
    for (const element of document.querySelectorAll("[data-ago]")) say(element, relativeTime(element.dataset.ago));
    for (const element of document.querySelectorAll("[data-since]")) {
      const seconds = Math.max(0, (Date.now() - instant(element.dataset.since)) / 1000);
      say(element, duration(seconds < 1 ? seconds : Math.floor(seconds)));
    }
  }, 1000);
}
