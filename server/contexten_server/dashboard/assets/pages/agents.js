// Who executes tasks, how busy they are, what tools and engines there are.

import { number, plural } from "../run/format.js";
import { badge, card, code, h, icon, pageHead, replace } from "../ui/elements.js";
import { latest } from "../ui/reading.js";
import { table } from "../ui/tables.js";
import { ago } from "../ui/times.js";

const REFRESH_MS = 700;

export function open({ api, live, signal }) {
  const agents = h("div", { class: "stack" });
  const tools = h("ul", { class: "rows" });
  const engines = h("div", { class: "stack" });
  const search = h("input", {
    type: "search",
    placeholder: "Search tools",
    "aria-label": "Search tools",
    autocomplete: "off",
    spellcheck: "false",
  });
  let known = [];
  let wasOpened = new Set();
  search.addEventListener("input", showTools);

  const load = latest(agents, { ask: () => Promise.all([api.agents(), api.scheduler()]), show, signal });

  function show([told, scheduler]) {
    replace(
      agents,
      told.note ? h("p", { class: "muted" }, told.note) : null,
      list(told.agents),
      h("h2", { class: "spaced" }, "Servers"),
      servers(scheduler.servers),
    );
    const isSame = JSON.stringify(known) === JSON.stringify(told.tools);
    known = told.tools;
    if (!isSame) showTools();
    replace(
      engines,
      table(
        "Engines",
        [
          ["Engine", "", (engine) => h("code", {}, engine.name)],
          ["Available", "", (engine) => (engine.available ? badge("completed", "Yes") : badge("cancelled", "No"))],
          ["Version", "", (engine) => engine.version ?? "–"],
          ["Note", "wide", (engine) => h("span", { class: "muted" }, engine.note)],
        ],
        told.engines,
      ),
      Object.keys(told.disabled_tools).length
        ? h(
            "details",
            { class: "more" },
            h(
              "summary",
              {},
              plural(Object.keys(told.disabled_tools).length, "tool that is off", "tools that are off"),
            ),
            h(
              "dl",
              { class: "facts" },
              Object.entries(told.disabled_tools).map(([name, how]) =>
                h("div", {}, h("dt", {}, h("code", {}, name)), h("dd", {}, how)),
              ),
            ),
          )
        : null,
    );
  }

  const list = (all) =>
    table(
      "Agents of this process",
      [
        ["Agent", "", (agent) => [h("strong", {}, agent.name), h("div", { class: "ids" }, agent.agent_type)]],
        [
          "State",
          "",
          (agent) =>
            agent.circuit
              ? badge(agent.circuit.state, agent.circuit.state === "open" ? "Left alone" : "One try")
              : agent.state
                ? h("span", {}, agent.state)
                : badge(agent.running ? "running" : "idle", agent.running ? "Busy" : "Free"),
        ],
        ["In use", "", places],
        ["Load", "numeric", (agent) => agent.load.toFixed(2)],
        [
          "Tools",
          "wide",
          (agent) => [
            agent.tools.slice(0, 12).map((tool) => h("code", { class: "tag" }, tool)),
            agent.tools.length > 12 ? ` and ${agent.tools.length - 12} more` : null,
          ],
        ],
      ],
      all,
    );

  function places(agent) {
    const most = agent.lowered_to ?? agent.capacity;
    const fill = h("span", { class: "fill" });
    fill.style.setProperty("inline-size", `${Math.min(100, most ? (100 * agent.running) / most : 0)}%`);
    return h(
      "span",
      { class: "load" },
      h("span", { class: "bar" }, fill),
      h("span", { class: "count" }, `${number(agent.running)} / ${number(most)}`),
    );
  }

  const servers = (all) =>
    all.length
      ? table(
          "Servers that drive this database",
          [
            ["Server", "", (server) => [server.holder, h("div", { class: "ids" }, h("code", {}, server.server_id))]],
            ["Host", "wide", (server) => `${server.host}, process ${server.pid}`],
            ["Started", "when", (server) => ago(server.started_at)],
            ["Runs", "numeric", (server) => number(server.runs)],
          ],
          all,
        )
      : h("p", { class: "muted" }, "No server drives this database now: runs wait until one starts.");

  function showTools() {
    const words = search.value.trim().toLowerCase();
    wasOpened = new Set([...tools.querySelectorAll("details[open]")].map((one) => one.dataset.tool));
    const found = known.filter((tool) => `${tool.name} ${tool.description}`.toLowerCase().includes(words));
    replace(
      tools,
      found.length
        ? found.map((tool) =>
            h(
              "li",
              { class: "row" },
              h(
                "div",
                { class: "row-main" },
                h("code", { class: "row-link" }, tool.name),
                h("p", { class: "muted" }, tool.description),
                h(
                  "div",
                  { class: "meta" },
                  tool.agents.length ? `by ${tool.agents.join(", ")}` : "no agent has it",
                  tool.rate_limit ? h("span", {}, `at most ${tool.rate_limit}`) : null,
                  tool.circuit ? badge(tool.circuit.state, "Left alone") : null,
                ),
                tool.parameters
                  ? h(
                      "details",
                      { class: "more", dataset: { tool: tool.name }, open: wasOpened.has(tool.name) },
                      h("summary", {}, "Parameters"),
                      code(tool.parameters, `Parameters of ${tool.name}`),
                    )
                  : null,
              ),
            ),
          )
        : h("li", { class: "row muted" }, "No tool matches."),
    );
  }

  live.follow(load, REFRESH_MS, signal);
  load();
  return {
    title: "Agents",
    element: h(
      "div",
      { class: "page" },
      pageHead("Agents", { lead: "Who executes tasks in this process, and how busy they are." }),
      agents,
      card("Engines", engines),
      h("h2", { class: "spaced" }, "Tools"),
      h(
        "div",
        { class: "toolbar", role: "search" },
        h("div", { class: "search" }, icon("search"), search, h("kbd", { "aria-hidden": "true" }, "/")),
      ),
      tools,
    ),
  };
}
