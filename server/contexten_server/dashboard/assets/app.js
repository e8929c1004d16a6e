// The frame around the pages: navigation, theme, what is live, shortcuts; and the router, by the address's hash.

import { api, forgetToken, hasToken, onUnauthorized } from "./api.js";
import { Live } from "./live.js";
import { announce, askToken, closeDialogs, dialog, failed } from "./ui/dialogs.js";
import { empty, h, icon, iconButton, pageHead, problem, replace, say } from "./ui/elements.js";
import { keepTime } from "./ui/times.js";
import { installShortcuts } from "./ui/shortcuts.js";

const PLACES = [
  { path: "runs", label: "Runs", key: "r" },
  { path: "flows", label: "Flows", key: "f" },
  { path: "queue", label: "Queue", key: "q" },
  { path: "agents", label: "Agents", key: "a" },
  { path: "charts", label: "Charts", key: "c" },
  { path: "triggers", label: "Triggers", key: "t" },
  { path: "notifications", label: "Notifications", key: "n" },
];

/** Pages by the first part of the address; with a second part, the page of one thing. */
const PAGES = {
  runs: () => import("./pages/runs.js"),
  "runs/*": () => import("./pages/run.js"),
  flows: () => import("./pages/flows.js"),
  "flows/*": () => import("./pages/flow.js"),
  create: () => import("./pages/create.js"),
  queue: () => import("./pages/queue.js"),
  agents: () => import("./pages/agents.js"),
  charts: () => import("./pages/charts.js"),
  triggers: () => import("./pages/triggers.js"),
  "triggers/*": () => import("./pages/trigger.js"),
  notifications: () => import("./pages/notifications.js"),
};

const OVERVIEW_MS = 1500;

const live = new Live();
const app = { live, isReadOnly: false };
let current = null;

/** What an address says: `#/runs/run_1?status=failed`. */
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [place = "runs", ...rest] = path.split("/").filter(Boolean);
  let id = rest.length ? rest.join("/") : null;
  try {
    id = id && decodeURIComponent(id);
  } catch {
    // typed by hand: it is looked for as it stands
  }
  return { place, id, query: new URLSearchParams(query ?? "") };
}

/** Go somewhere. `replace` leaves no entry in the history and does not open the page anew: its filters changed. */
function go(path, query = {}, { replace: isQuiet = false } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = given.length ? `?${new URLSearchParams(given)}` : "";
  const hash = `#/${path}${text}`;
  if (isQuiet) history.replaceState(null, "", hash);
  else if (location.hash === hash) route();
  else location.hash = hash;
}

async function route() {
  const { place, id, query } = address();
  const main = document.getElementById("main");
  const isFirst = current === null;
  current?.abort();
  const abort = new AbortController();
  current = abort;
  for (const link of document.querySelectorAll("[data-place]")) {
    if (link.dataset.place === place) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  closeDialogs(); // what they ask is about the page that was left
  try {
    const name = id === null ? place : `${place}/*`;
    const page = Object.hasOwn(PAGES, name) ? await PAGES[name]() : NOWHERE;
    if (abort.signal.aborted) return;
    const { element, title } = page.open({ app, api, live, go, id, query, signal: abort.signal });
    document.title = `${title} · Contexten Flow`;
    replace(main, element);
  } catch (error) {
    if (abort.signal.aborted) return;
    replace(main, h("div", { class: "page" }, pageHead("This page could not be opened"), problem(error)));
  }
  main.dataset.address = location.hash;
  scrollTo(0, 0);
  if (!isFirst) (main.querySelector("h1") ?? main).focus({ preventScroll: true }); // so that screen readers tell the new page
}

const NOWHERE = {
  open: () => ({
    title: "Not found",
    element: h(
      "div",
      { class: "page" },
      pageHead("Nothing is here"),
      empty(
        "No page has this address",
        "It may have been mistyped.",
        h("a", { class: "button", href: "#/runs" }, "See all runs"),
      ),
    ),
  }),
};

function navigation() {
  return h(
    "ul",
    {},
    PLACES.map(({ path, label, key }) =>
      h(
        "li",
        {},
        h(
          "a",
          { href: `#/${path}`, dataset: { place: path }, "aria-keyshortcuts": `g ${key}` },
          icon(path),
          h("span", {}, label),
          h("span", { class: "nav-count", dataset: { count: path } }),
        ),
      ),
    ),
  );
}

const CONNECTION = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting" };

function connection() {
  const word = h("span", {}, CONNECTION[live.state]);
  const element = h(
    "button",
    {
      type: "button",
      class: "connection",
      dataset: { connection: live.state },
      title: "Whether changes arrive as they happen",
      onclick: () => live.retry(),
    },
    h("span", { class: "dot", "aria-hidden": "true" }),
    word,
  );
  live.listen(({ type, state }) => {
    if (type !== "state") return;
    element.dataset.connection = state;
    say(word, CONNECTION[state]);
    announce(state === "live" ? "Live: changes arrive as they happen" : "Reconnecting to the server");
  });
  return element;
}

function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("contexten-flow.theme", root.dataset.theme);
}

function frame(help) {
  const brand = () =>
    h(
      "a",
      { class: "brand", href: "#/runs" },
      h("img", { src: "assets/icon.svg", alt: "", width: 22, height: 22 }),
      "Contexten Flow",
    );
  const tools = () =>
    h(
      "div",
      { class: "tools" },
      iconButton("theme", "Dark or light", toggleTheme),
      iconButton("help", "Keyboard shortcuts", help),
    );
  const drawer = h("dialog", { class: "drawer", "aria-label": "Menu" });
  const closeDrawer = iconButton("close", "Close the menu", () => drawer.close());
  drawer.append(h("header", {}, brand(), closeDrawer), h("nav", { "aria-label": "Pages" }, navigation()), tools());
  drawer.addEventListener("mousedown", (event) => event.target === drawer && drawer.close());
  drawer.addEventListener("click", (event) => event.target.closest("a") && drawer.close());
  const version = h("span", { class: "version", id: "version" });
  const sign = h(
    "button",
    { type: "button", class: "link", id: "sign-out", hidden: true, onclick: () => (forgetToken(), location.reload()) },
    "Sign out",
  );
  return h(
    "div",
    { class: "frame" },
    h(
      "header",
      { class: "side" },
      brand(),
      h("nav", { "aria-label": "Pages" }, navigation()),
      h("div", { class: "side-foot" }, connection(), tools(), h("div", { class: "about" }, version, sign)),
    ),
    h(
      "header",
      { class: "top" },
      iconButton("menu", "Open the menu", () => drawer.showModal()),
      brand(),
      connection(),
    ),
    drawer,
    h("main", { id: "main", tabindex: "-1" }),
  );
}

/** The counts beside the pages' names, and whether the server lets anything be changed. */
async function refreshOverview() {
  try {
    const { version, read_only, runs } = await api.overview();
    app.isReadOnly = read_only;
    document.documentElement.dataset.readOnly = String(read_only);
    say(document.getElementById("version"), `v${version}${read_only ? " · read-only" : ""}`);
    document.getElementById("sign-out").hidden = !hasToken();
    for (const element of document.querySelectorAll('[data-count="runs"]')) say(element, runs.running || "");
    for (const element of document.querySelectorAll('[data-count="queue"]')) say(element, runs.scheduled || "");
  } catch (error) {
    if (error.code !== "unreachable") failed(error);
  }
}

async function start() {
  onUnauthorized(askToken);
  const { help } = installShortcuts({ places: PLACES, go, toggleTheme, dialog });
  replace(document.getElementById("app"), frame(help));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  keepTime();
  await refreshOverview();
  live.follow(refreshOverview, OVERVIEW_MS);
  addEventListener("hashchange", route);
  live.run();
  await route();
}

start();
