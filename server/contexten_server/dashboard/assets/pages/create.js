// Write a flow, or its next version, and have it checked as it is written: by the same checker as everywhere.

import { announce, done, failed } from "../ui/dialogs.js";
import { button, card, field, h, pageHead, problem, replace, say } from "../ui/elements.js";
import { EXAMPLES } from "../ui/examples.js";
import { colour, locate, written } from "../ui/json_text.js";
import { plural } from "../run/format.js";
import { runFlow } from "../ui/run_form.js";

const TYPING_MS = 250;
const DRAFT = "contexten-flow.draft";

export function open({ app, api, go, query, signal }) {
  const flow_id = query.get("flow");
  const title = app.isReadOnly ? "Check a flow" : flow_id ? `Edit ${flow_id}` : "New flow";
  const editor = h("textarea", {
    class: "code-input editor",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    wrap: "off",
    "aria-label": "Definition, as JSON",
    "aria-describedby": "verdict",
  });
  const paint = h("pre", { class: "code-input editor paint", "aria-hidden": "true" });
  editor.addEventListener("paste", () =>
    // one long line is read from its beginning
    requestAnimationFrame(() => editor.value.includes("\n") || editor.scrollTo(0, 0)),
  );
  editor.addEventListener("scroll", () => paint.scrollTo(editor.scrollLeft, editor.scrollTop));
  const verdict = h("p", { class: "verdict", id: "verdict", role: "status" });
  const findings = h("ol", { class: "findings" });
  const plan = h("div", {});
  const told = h("div", {});
  const wantedId = h("input", {
    type: "text",
    spellcheck: "false",
    placeholder: "made from the name",
    autocomplete: "off",
  });
  const save = button(flow_id ? "Save as the next version" : "Save", () => keep(false));
  const saveAndRun = button("Save and run", () => keep(true), { kind: "primary", symbol: "play" });

  let typing;
  let checking = null;
  editor.addEventListener("input", () => {
    if (!flow_id) sessionStorage.setItem(DRAFT, editor.value);
    colour(paint, editor.value);
    paint.scrollTo(editor.scrollLeft, editor.scrollTop);
    clearTimeout(typing);
    typing = setTimeout(check, TYPING_MS);
  });
  signal.addEventListener("abort", () => clearTimeout(typing));

  function write(value) {
    editor.value = typeof value === "string" ? value : written(value);
    editor.dispatchEvent(new Event("input"));
    clearTimeout(typing);
    return check();
  }

  async function check() {
    checking?.abort();
    if (!editor.value.trim()) {
      show("", "Nothing is written yet. Begin with an example.", []);
      return;
    }
    checking = new AbortController();
    try {
      // As text: what a JSON object cannot hold, such as the same key twice, is told too.
      const { ok, issues = [], warnings = [], plan: shape } = await api.check(editor.value, { signal: checking.signal });
      if (signal.aborted) return;
      show(
        ok ? "good" : "bad",
        ok
          ? `It can run: ${plural(shape?.tasks ?? 0, "task")} in ${plural(shape?.stages ?? 0, "stage")}.`
          : `${plural(issues.length, "problem")} to mend.`,
        [...issues.map((issue) => [issue, "problem"]), ...warnings.map((issue) => [issue, "warning"])],
      );
      replace(plan, shape ? waves(shape) : null);
    } catch (error) {
      if (error.name !== "AbortError") show("bad", error.message, []);
    }
  }

  function show(state, text, found) {
    verdict.dataset.verdict = state;
    say(verdict, text);
    replace(
      findings,
      found.map(([issue, kind]) => finding(issue, kind)),
    );
    if (state !== "good") replace(plan);
    for (const one of [save, saveAndRun]) one.disabled = state !== "good";
  }

  function finding(issue, kind) {
    const mend = issue.patch
      ? button("Apply patch", () => mendBy(issue.patch), { kind: "small" })
      : null;
    const detail = [
      issue.expected !== undefined && ["Expected", issue.expected],
      issue.got !== undefined && ["Got", issue.got],
      issue.suggestion && ["Suggestion", issue.suggestion],
    ].filter(Boolean);
    return h(
      "li",
      { class: "finding", dataset: { kind } },
      h(
        "button",
        { type: "button", class: "where", title: "Show the place", onclick: () => select(issue.path) },
        h("span", { class: "kind" }, kind === "problem" ? "Problem" : "Warning"),
        h("code", {}, issue.path || "/"),
      ),
      h("p", {}, issue.message),
      detail.length
        ? h(
            "dl",
            {},
            detail.map(([term, value]) =>
              h(
                "div",
                {},
                h("dt", {}, term),
                h("dd", {}, h("code", {}, typeof value === "string" ? value : JSON.stringify(value))),
              ),
            ),
          )
        : null,
      mend,
    );
  }

  async function mendBy(patch) {
    try {
      const text = editor.value;
      const { definition } = await api.check(text, { patch });
      if (signal.aborted || editor.value !== text) return; // written on meanwhile: it is checked anew
      if (!definition) return check(); // other mistakes come first: the patch fits no text that is not whole
      write(definition);
      announce("The patch is applied.");
      editor.focus();
    } catch (error) {
      failed(error);
    }
  }

  function select(pointer) {
    const [start, end] = locate(editor.value, pointer);
    editor.focus();
    editor.setSelectionRange(start, Math.min(end, start + 2000));
    const line = editor.value.slice(0, start).split("\n").length - 1;
    const height = Number.parseFloat(getComputedStyle(editor).lineHeight);
    editor.scrollTop = Math.max(0, line * height - editor.clientHeight / 3);
  }

  function waves({ waves: all, more_waves, tools }) {
    return [
      h("h3", {}, "Tasks that may start together"),
      h(
        "ol",
        { class: "waves" },
        all.slice(0, 20).map((wave) =>
          h(
            "li",
            {},
            wave.map((task) => h("code", { class: "tag" }, task)),
          ),
        ),
      ),
      all.length > 20 || more_waves
        ? h(
            "p",
            { class: "muted" },
            `and ${plural(all.length - Math.min(20, all.length) + (more_waves ?? 0), "more wave", "more waves")}`,
          )
        : null,
      tools?.length
        ? [
            h("h3", {}, "Tools"),
            h(
              "p",
              {},
              tools.map((tool) => h("code", { class: "tag" }, tool)),
            ),
          ]
        : null,
    ];
  }

  async function keep(isRun) {
    replace(told);
    try {
      const workflow_def = editor.value;
      const saved = flow_id
        ? await api.updateFlow(flow_id, { workflow_def })
        : await api.createFlow({ workflow_def, ...(wantedId.value.trim() && { flow_id: wantedId.value.trim() }) });
      sessionStorage.removeItem(DRAFT);
      const address = `flows/${encodeURIComponent(saved.flow_id)}`;
      done(
        saved.existing ? "It was saved before; nothing changed." : `Saved as version ${saved.version}.`,
        `#/${address}`,
        "See the flow",
      );
      if (!isRun) return go(address);
      const { inputs } = (await api.flow(saved.flow_id)).definition;
      if (Object.keys(inputs?.properties ?? {}).length || inputs?.required?.length)
        await runFlow({ api, go, flow_id: saved.flow_id });
      else go(`runs/${encodeURIComponent((await api.startRun({ flow_id: saved.flow_id })).run_id)}`);
    } catch (error) {
      replace(told, problem(error));
    }
  }

  async function begin() {
    if (flow_id) {
      try {
        const flow = await api.flow(flow_id);
        await write(flow.definition);
        if (query.get("at")) select(query.get("at"));
      } catch (error) {
        replace(told, problem(error));
      }
      return;
    }
    await write(sessionStorage.getItem(DRAFT) ?? EXAMPLES["Three steps"]);
  }
  begin();

  const examples = Object.keys(EXAMPLES).map((name) => button(name, () => write(EXAMPLES[name]), { kind: "small" }));
  return {
    title,
    element: h(
      "div",
      { class: "page wide" },
      pageHead(title, {
        lead: app.isReadOnly ? "This server is read-only: a flow can be written and checked here, but not saved." : null,
        crumbs: flow_id
          ? [
              ["Flows", "#/flows"],
              [flow_id, `#/flows/${encodeURIComponent(flow_id)}`],
            ]
          : [["Flows", "#/flows"]],
        actions: app.isReadOnly ? [] : [save, saveAndRun],
      }),
      told,
      h(
        "div",
        { class: "editing" },
        h(
          "div",
          { class: "editor-side" },
          h(
            "div",
            { class: "editor-bar" },
            flow_id
              ? null
              : h(
                  "div",
                  { class: "examples", role: "group", "aria-label": "Begin with an example" },
                  h("span", { class: "muted" }, "Examples"),
                  examples,
                ),
            button(
              "Tidy up",
              () => {
                try {
                  write(JSON.parse(editor.value));
                } catch (error) {
                  failed(error);
                }
              },
              { kind: "small" },
            ),
          ),
          h("div", { class: "editor-frame" }, paint, editor),
        ),
        h(
          "div",
          { class: "check-side" },
          card("Check", verdict, findings, plan),
          flow_id || app.isReadOnly
            ? null
            : card("Identity", field("Flow id", wantedId, "Optional. Letters, digits, dots, dashes.")),
        ),
      ),
    ),
  };
}
