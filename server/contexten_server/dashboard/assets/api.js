// The HTTP API. Every answer is JSON; every refusal has the project's shape: code, message, issues, next.

const TOKEN = "contexten-flow.token";

/** A request that was refused, or that reached nobody (status 0). */
export class ApiError extends Error {
  constructor(status, { code = "error", message = "The request failed.", next = null, issues = [] } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.next = next;
    this.issues = issues;
  }
}

let prompt = null;
let asking = null;

/** `ask(message)` shows a person why a token is needed and resolves with one, or with null. */
export function onUnauthorized(ask) {
  prompt = ask;
}

/** The token is kept as long as the tab, and is sent in a header only: no other page can send it along. */
export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** A response of the server, with the caller's token. Asks for one where it is refused; raises ApiError. */
export async function open(path, { method = "GET", query = {}, body, signal, accept = "application/json" } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const response = await send(path, { method, query, body, signal, accept, token });
    if (response.ok) return response;
    const error = await refusal(response);
    if (response.status !== 401 || prompt === null) throw error;
    if (sessionStorage.getItem(TOKEN) !== token) continue; // another request has asked meanwhile
    asking ??= prompt(token === null ? "" : error.message).finally(() => (asking = null));
    const given = await asking;
    if (!given) throw error;
    sessionStorage.setItem(TOKEN, given);
  }
}

async function send(path, { method, query, body, signal, accept, token }) {
  const address = new URL(`api${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") address.searchParams.set(name, value);
  }
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (method !== "GET") headers["Content-Type"] = "application/json";
  const content = method === "GET" ? undefined : JSON.stringify(body ?? {});
  try {
    return await fetch(address, { method, headers, body: content, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {
      code: "unreachable",
      message: "The server does not answer.",
      next: "See that it runs; this page reconnects by itself.",
    });
  }
}

async function refusal(response) {
  try {
    const told = await response.json();
    return new ApiError(response.status, told.error ?? {});
  } catch {
    return new ApiError(response.status, { message: `The server answered ${response.status} without saying why.` });
  }
}

const id = encodeURIComponent;
const get = async (path, query, signal) => (await open(path, { query, signal })).json();
const put = async (method, path, body) => (await open(path, { method, body })).json();

/** The endpoints by what they are about. */
export const api = {
  overview: () => get("/overview"),
  agents: () => get("/agents"),
  metrics: () => get("/metrics"),
  scheduler: () => get("/scheduler"),
  history: (query) => get("/history", query),
  exported: (file, query) => open(`/export/${file}`, { query, accept: "*/*" }).then((response) => response.text()),
  check: (workflow_def, { patch, signal } = {}) =>
    open("/check", { method: "POST", body: { workflow_def, patch }, signal }).then((response) => response.json()),

  flows: (query) => get("/flows", query),
  flow: (flow, version) => get(`/flows/${id(flow)}`, { version }),
  flowExplanation: (flow) => get(`/flows/${id(flow)}/explanation`),
  createFlow: (body) => put("POST", "/flows", body),
  updateFlow: (flow, body) => put("PUT", `/flows/${id(flow)}`, body),

  runs: (query, signal) => get("/runs", query, signal),
  run: (run, query) => get(`/runs/${id(run)}`, query),
  startRun: (body) => put("POST", "/runs", body),
  runEvents: (run, query) => get(`/runs/${id(run)}/events`, query),
  runExplanation: (run) => get(`/runs/${id(run)}/explanation`),
  runOutput: (run) => get(`/runs/${id(run)}/output`),
  taskOutput: (run, task) => get(`/runs/${id(run)}/outputs/${id(task)}`),
  act: (run, body) => put("POST", `/runs/${id(run)}/actions`, body),

  queue: (query) => get("/queue", query),
  forecast: (slots) => get("/strategy/forecast", { slots }),
  setStrategy: (body) => put("POST", "/strategy", body),

  triggers: (query) => get("/triggers", query),
  triggerKinds: () => get("/trigger-kinds"),
  trigger: (trigger) => get(`/triggers/${id(trigger)}`),
  createTrigger: (body) => put("POST", "/triggers", body),
  updateTrigger: (trigger, body) => put("PATCH", `/triggers/${id(trigger)}`, body),
  deleteTrigger: (trigger) => put("DELETE", `/triggers/${id(trigger)}`),
  testTrigger: (trigger, body) => put("POST", `/triggers/${id(trigger)}/test`, body),
  deliveries: (query) => get("/deliveries", query),
  redeliver: (delivery) => put("POST", `/deliveries/${id(delivery)}/redeliver`),

  notifications: (query) => get("/notifications", query),
  createNotification: (body) => put("POST", "/notifications", body),
  updateNotification: (notification, body) => put("PATCH", `/notifications/${id(notification)}`, body),
  deleteNotification: (notification) => put("DELETE", `/notifications/${id(notification)}`),
  testNotification: (notification) => put("POST", `/notifications/${id(notification)}/test`),
  dispatches: (query) => get("/dispatches", query),
  retryDispatch: (dispatch) => put("POST", `/dispatches/${id(dispatch)}/retry`),
};
