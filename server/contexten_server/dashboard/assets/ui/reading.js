// What a page reads, and shows in one of its places.

import { problem, replace } from "./elements.js";

/**
 * Gives a function that asks and shows: `ask()` reads, `show(answer)` puts it on the page. Of answers that overlap only
 * the one that was asked for last is shown, and none after `signal`. `place` is busy meanwhile, and tells why there is
 * no answer (or `refuse(error)` does); where only the server cannot be reached, what it shows already stays.
 */
export function latest(place, { ask, show, signal, refuse = (error) => replace(place, problem(error)) }) {
  let asked = 0;
  let isShown = false;
  return async function load() {
    const mine = ++asked;
    const isLate = () => mine !== asked || signal.aborted;
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await ask();
      if (isLate()) return;
      show(answer);
      isShown = true;
    } catch (error) {
      if (!isLate() && !(isShown && error.code === "unreachable")) refuse(error);
    } finally {
      if (mine === asked) place.setAttribute("aria-busy", "false");
    }
  };
}

const filled = new WeakMap();
const STOPS = "a[href], button, select, input, [tabindex]";

/**
 * Put what `build()` gives into `place`, only where it is made of something else than what stands there: `what`, as JSON.
 * Where a control there has the focus, the one that takes its place has it afterwards.
 */
export function refill(place, what, build) {
  const key = JSON.stringify(what);
  const last = filled.get(place);
  if (last && last.key === key && last.content === place.firstChild) return;
  const at = [...place.querySelectorAll(STOPS)].indexOf(document.activeElement);
  replace(place, build());
  filled.set(place, { key, content: place.firstChild });
  if (at >= 0) (place.querySelectorAll(STOPS)[at] ?? place.querySelector(STOPS))?.focus({ preventScroll: true });
}
