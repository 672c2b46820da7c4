// Requests to the server. The token comes from the address's fragment, which browsers never send, and stays in this tab.
const KEY = "melanoma-dist-token";
const PATIENCE = 6; // tries while the server is busy

export class Refused extends Error {
  constructor(status, { detail, code, values }) {
    super(detail);
    Object.assign(this, { status, code, values: values ?? {} });
  }

  // Whether the same request would be refused again: a file too large, for example.
  get final() {
    return this.status >= 400 && this.status < 500 && ![401, 408, 429].includes(this.status);
  }
}

export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    sessionStorage.setItem(KEY, token);
    history.replaceState(null, "", location.pathname);
  }
}

export const setToken = (token) => sessionStorage.setItem(KEY, token.trim());

// The browser could not read a file: it is a folder, or no longer what was chosen.
export class Unreadable extends Error {
  unreadable = true;
}

async function request(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    if (response.status !== 503 || attempt === PATIENCE) throw await refusal(response);
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
  }
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  return new Refused(response.status, problem);
}

function form(file, about) {
  const body = new FormData();
  body.append("images", file, file.name);
  for (const [field, value] of Object.entries(about)) body.append(field, value);
  return { method: "POST", body };
}

// A browser does not tell a file that it cannot read from a server that it cannot reach.
async function send(path, file, about) {
  try {
    return await (await request(path, form(file, about))).json();
  } catch (error) {
    if (error.status) throw error;
    await file.slice(0, 1).arrayBuffer().catch(() => { throw new Unreadable(); });
    throw error;
  }
}

export const hasToken = () => Boolean(sessionStorage.getItem(KEY));
export const getModel = async () => (await request("/v1/model")).json();
export const getExamples = async () => (await request("/v1/examples")).json();
export const getPicture = async (path) => (await request(path)).blob();

const pictures = new Map(); // URLs of pictures of this server, by path: each is fetched once

export const knownPicture = (path) => pictures.get(path);

export async function pictureUrl(path) {
  if (!pictures.has(path)) pictures.set(path, URL.createObjectURL(await getPicture(path)));
  return pictures.get(path);
}

export async function predict(file, preview, about) {
  const answer = await send(`/v1/predict?preview=${preview}`, file, about);
  return { ...answer.images[0], model: answer.model };
}

export const explain = (file, label, about) => send(`/v1/explain?label=${encodeURIComponent(label)}`, file, about);
