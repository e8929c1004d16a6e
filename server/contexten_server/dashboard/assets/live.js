// What happens in the database, as it happens: one stream of server-sent events for the whole page. It is read with
// fetch, since EventSource cannot carry a token.

import { open } from "./api.js";

const SILENCE_MS = 45_000; // the server sends a comment at least every 15 s; after this the connection is taken for dead
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;
const REFUSED_WAIT_MS = 86_400_000;

/** The fields of each event of a text/event-stream, as they arrive. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let event = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data !== undefined) yield event;
          event = {};
        } else if (line.startsWith(":")) {
          yield { event: "ping" };
        } else {
          const [, name, text] = /^([^:]*):? ?(.*)$/s.exec(line);
          event[name] = name === "data" && event.data !== undefined ? `${event.data}\n${text}` : text;
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Tells of changes. `state` is `connecting`, `live` or `reconnecting`. Listeners get one of
 *   {type: "state", state}   the connection came or went
 *   {type: "change", run_id, flow_id, state, types}   something happened to a run
 *   {type: "refetch"}   changes may have been missed: what is shown must be asked for again
 * A page that nobody looks at is told of no change; when it is looked at again, of one refetch for all of them.
 */
export class Live {
  #listeners = new Set();
  #abort = null;
  #wake = null;
  #isRefused = false; // nobody is asked for a token again by itself
  #isMissed = false; // something happened while nobody looked
  state = "connecting";

  /** Call `listener` with what happens, until `signal` aborts. */
  listen(listener, signal) {
    this.#listeners.add(listener);
    signal?.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
  }

  /** Call `work` after each change that `concerns` it, as `coalesce` does, until `signal` aborts. */
  follow(work, gap_ms, signal, concerns = () => true) {
    const refresh = coalesce(() => !signal?.aborted && work(), gap_ms);
    this.listen((news) => news.type !== "state" && (news.type === "refetch" || concerns(news)) && refresh(), signal);
  }

  /** Connect, and stay connected as long as the page is there. */
  async run() {
    addEventListener("online", () => this.#isRefused || this.retry());
    addEventListener("visibilitychange", () => document.hidden || this.#seen());
    let wait = FIRST_WAIT_MS;
    for (;;) {
      this.#isRefused = false;
      try {
        await this.#read(() => (wait = FIRST_WAIT_MS));
      } catch (error) {
        this.#isRefused = error.status === 401;
        console.debug("the live stream ended:", error.message);
      }
      this.#become("reconnecting");
      await this.#pause(this.#isRefused ? REFUSED_WAIT_MS : wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  /** Try now instead of waiting for the next try. */
  retry() {
    this.#wake?.();
  }

  #seen() {
    if (!this.#isRefused) this.retry();
    if (this.#isMissed) this.#tell({ type: "refetch" });
    this.#isMissed = false;
  }

  async #read(onOpen) {
    this.#abort = new AbortController();
    const silence = this.#watchdog(); // a connection that is never answered is dead too
    try {
      const response = await open("/events", { accept: "text/event-stream", signal: this.#abort.signal });
      for await (const { event, data } of events(response.body)) {
        silence.put();
        if (event === "hello") {
          onOpen();
          this.#become("live");
          this.#tell({ type: "refetch" }); // what happened before it, after a page's first answer, comes by no stream
        } else if (event === "change") {
          this.#tell({ ...JSON.parse(data), type: "change" });
        } else if (event === "lag") {
          this.#tell({ type: "refetch" });
        }
      }
    } finally {
      silence.end();
      this.#abort.abort();
    }
  }

  #watchdog() {
    let timer;
    const put = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#abort.abort(), SILENCE_MS);
    };
    put();
    return { put, end: () => clearTimeout(timer) };
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    }).finally(() => (this.#wake = null));
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#tell({ type: "state", state });
  }

  #tell(news) {
    if (document.hidden && news.type !== "state") this.#isMissed = true;
    else for (const listener of [...this.#listeners]) listener(news);
  }
}

/**
 * Calls `work` for bursts of calls: at once, then at most every `gap_ms`, never two at a time, and once more after the last call.
 */
export function coalesce(work, gap_ms) {
  let isBusy = false;
  let isWanted = false;
  return async function ask() {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    try {
      while (isWanted) {
        isWanted = false;
        await work();
        await new Promise((resolve) => setTimeout(resolve, gap_ms));
      }
    } finally {
      isBusy = false;
    }
  };
}
