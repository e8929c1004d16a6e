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
