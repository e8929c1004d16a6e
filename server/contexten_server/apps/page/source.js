// A run as the tools of our server tell it, through the host.

const MAX_CHARS = 90_000;
const WAIT_S = 25;
const PAUSE_MS = 2_000; // after a wait that failed
const LONGEST_PAUSE_MS = 30_000;
const MOST_REFUSALS = 3; // one after another
const ENDED = new Set(["completed", "failed", "cancelled"]);

/** The source of a run view (see run/runview.js). `onRefused` is called when the host turns out to pass no calls on. */
export function createSource(host, runId, { onRefused }) {
  let cursor = null; // up to where the journal was read: waits begin there
  let hasGraph = false; // it never changes
  let state = null;
  let refusals = MOST_REFUSALS - 1; // one is enough before the first answer

  const call = async (tool, args) => {
    try {
      const answer = await host.call(tool, args);
      refusals = 0;
      return answer;
    } catch (error) {
      refusals = error.isRefusal ? refusals + 1 : 0;
      if (refusals >= MOST_REFUSALS) onRefused(error);
      throw error;
    }
  };
  const status = (args) => call("get_flow_status", { run_id: runId, max_chars: MAX_CHARS, ...args });

  /** All parts of a text that was cut. */
  const whole = async (key, first) => {
    let cut = first.output_truncated;
    if (cut?.what !== key) return first[key];
    let text = cut.preview;
    while (cut.next) {
      cut = (await call(cut.next.tool, cut.next.arguments)).output_truncated;
      text += cut.preview;
    }
    return JSON.parse(text);
  };

  return {
    async load(since) {
      const run = await status({ detail: hasGraph ? "tasks" : "graph", ...(hasGraph && since ? { since } : {}) });
      if (!hasGraph) run.graph = await whole("graph", run);
      hasGraph = true;
      if (run.tasks === undefined) run.tasks = (await status({ detail: "tasks" })).tasks;
      if (run.output_truncated) Object.assign(run, await status({})); // what made room for the tasks
      state = run.state;
      return { run };
    },
    async events(since) {
      const page = await status({ detail: "events", ...(since ? { since } : {}) });
      cursor = page.cursor;
      return { events: page.events ?? [], more: page.more_events, cursor: page.cursor, reset: page.reset };
    },
    output: async (task) => outputOf(await status({ detail: "output", task }), whole),
    runOutput: async () => outputOf(await status({ detail: "output" }), whole),
    async definition() {
      const run = await status({ detail: "definition" });
      return { definition: await whole("definition", run), inputs: run.inputs };
    },
    explain: () => call("explain_flow", { run_id: runId }),
    act: (action, { task, reason } = {}) =>
      call("control_flow", { run_id: runId, action, ...(task ? { task } : {}), ...(reason ? { reason } : {}) }),
    async changes(onChange, signal) {
      let pause = PAUSE_MS;
      while (!signal.aborted && !ENDED.has(state)) {
        if (cursor === null) {
          await sleep(100, signal); // until the journal was first read
          continue;
        }
        try {
          const news = await call("wait_for_flow", { run_id: runId, until: "change", since: cursor, timeout_s: WAIT_S });
          pause = PAUSE_MS;
          if (signal.aborted) return;
          state = news.state;
          if (news.events?.length || ENDED.has(state)) {
            cursor = news.cursor;
            onChange();
          }
        } catch {
          if (signal.aborted) return;
          await sleep(pause, signal);
          pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
          onChange();
        }
      }
    },
  };
}

async function outputOf(answer, whole) {
  if (answer.has_output === false) throw new Error(answer.note ?? "There is no output.");
  return whole("output", answer);
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
