// The host that shows this page: JSON-RPC 2.0 over postMessage, as the MCP Apps specification (2026-01-26) has it.

const PROTOCOL = "2026-01-26";
const CALL_MS = 70_000; // hosts cut calls at about a minute

/** What the host, or a tool that it called, answered as an error. */
export class HostError extends Error {
  constructor(message, { code = null, isRefusal = false } = {}) {
    super(message);
    this.code = code;
    this.isRefusal = isRefusal; // the host let the call through to no server
  }
}

/** One conversation with the host; `on` holds what is called for its notifications, by their last name. */
export class Host {
  #next = 1;
  #asked = new Map();
  #stop = new AbortController();
  context = {};
  capabilities = {};

  constructor(on) {
    this.on = on;
    addEventListener("message", (event) => this.#hear(event), { signal: this.#stop.signal });
  }

  /** Introduce the page. Raises HostError where nobody answers. */
  async connect(version) {
    const answer = await this.request("ui/initialize", {
      protocolVersion: PROTOCOL,
      appInfo: { name: "contexten-flow-run", version },
      appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
    });
    this.capabilities = answer.hostCapabilities ?? {};
    this.context = answer.hostContext ?? {};
    this.on.context?.(this.context);
    this.notify("ui/notifications/initialized", {});
  }

  /** Whether the host says that it passes calls of tools on. */
  get callsTools() {
    return Boolean(this.capabilities.serverTools);
  }

  /** Call a tool of our server; its answer as data. Raises HostError: with the tool's own words, or where it was refused. */
  async call(name, args) {
    let result;
    try {
      result = await this.request("tools/call", { name, arguments: args });
    } catch (error) {
      throw new HostError(error.message, { isRefusal: true });
    }
    const data = contentOf(result);
    if (result.isError) throw new HostError(data?.error?.message ?? textOf(result), { code: data?.error?.code });
    if (data === null) throw new HostError(`${name} answered nothing that can be shown.`);
    return data;
  }

  request(method, params) {
    const id = this.#next;
    this.#next += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        reject(new HostError(`The host did not answer ${method}.`));
      }, CALL_MS);
      this.#asked.set(id, { resolve, reject, timer });
      this.#send({ id, method, params });
    });
  }

  notify(method, params) {
    this.#send({ method, params });
  }

  /** Listen and wait no more. */
  close() {
    this.#stop.abort();
    for (const { timer } of this.#asked.values()) clearTimeout(timer);
    this.#asked.clear();
  }

  #send(message) {
    parent.postMessage({ jsonrpc: "2.0", ...message }, "*"); // the host's origin is not known to a page in a sandbox
  }

  #hear({ source, data }) {
    if (source !== parent || data?.jsonrpc !== "2.0") return;
    if (typeof data.method === "string") this.#answer(data);
    else if (this.#asked.has(data.id)) {
      const { resolve, reject, timer } = this.#asked.get(data.id);
      this.#asked.delete(data.id);
      clearTimeout(timer);
      if (data.error) reject(new HostError(String(data.error.message ?? "The host refused."), { code: data.error.code }));
      else resolve(data.result ?? {});
    }
  }

  #answer({ id, method, params = {} }) {
    switch (method) {
      case "ui/notifications/tool-result":
        this.on.result?.(params);
        break;
      case "ui/notifications/tool-cancelled":
        this.on.cancelled?.(params.reason);
        break;
      case "ui/notifications/host-context-changed":
        Object.assign(this.context, params);
        this.on.context?.(this.context);
        break;
      case "ui/resource-teardown":
        this.on.teardown?.();
        this.#send({ id, result: {} });
        break;
      case "ping":
        this.#send({ id, result: {} });
        break;
      default:
        if (id !== undefined) this.#send({ id, error: { code: -32601, message: `This page does not know ${method}.` } });
    }
  }
}

/** What a tool answered, as data: its structured content, else its text read as JSON; null where it is neither. */
export function contentOf(result) {
  if (result?.structuredContent && typeof result.structuredContent === "object") return result.structuredContent;
  try {
    const data = JSON.parse(textOf(result));
    return data && typeof data === "object" ? data : null;
  } catch {
    return null;
  }
}

/** The text of a tool's answer. */
export function textOf(result) {
  const parts = Array.isArray(result?.content) ? result.content : [];
  return parts.filter((part) => part?.type === "text").map((part) => part.text).join("\n");
}
