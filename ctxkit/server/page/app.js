// The page: a conversation, and what each of its prompts was made of.

import { chat, json, useKey } from "./api.js";
import { bar, element, parts, sources } from "./budget.js";

const at = (id) => document.getElementById(id);
const state = { messages: [], session: null, sessions: true, windows: {}, running: null };

// --- what is asked ----------------------------------------------------------------------------------------------------

const options = (window) => ({ ...(state.session ? { session: state.session } : {}), ...(window ? { window_tokens: window } : {}) });

// With a session the server knows what was said; without, the page sends it again.
function request(text, window) {
  const said = text ? [{ role: "user", content: text }] : [];
  return { model: at("model").value, messages: state.session ? said : [...state.messages, ...said], ctxkit: options(window) };
}

async function send(text) {
  if (!text.trim() || state.running) return;
  try {
    if (state.sessions && !state.session) state.session = (await json("v1/sessions", { method: "POST", body: { metadata: { title: text.slice(0, 60) } } })).id;
  } catch (error) {
    if (error.code !== "no_sessions") return shown("error").text(error.message);
    state.sessions = false;
  }
  shown("user").text(text);
  const answer = shown("assistant");
  const body = request(text, Number(at("window").value));
  at("draft").value = "";
  await answered(answer, body, text);
  await Promise.all([listed(), replanned()]);
}

async function answered(answer, body, text) {
  state.running = new AbortController();
  busy(true);
  let said = "", report = null;
  try {
    for await (const chunk of chat(body, state.running.signal)) {
      report = chunk.x_ctxkit || report;
      const delta = chunk.choices[0]?.delta;
      if (delta?.content) answer.text((said += delta.content));
      for (const call of delta?.tool_calls || []) if (call.function?.name) answer.text((said += `\n[calls ${call.function.name}]`));
    }
    state.messages.push({ role: "user", content: text }, { role: "assistant", content: said });
  } catch (error) {
    answer.fail(error.name === "AbortError" ? "stopped; nothing of this turn was kept" : error.message);
  } finally {
    state.running = null;
    busy(false);
  }
  if (report) answer.report(report);
}

function busy(is) {
  at("send").disabled = is;
  at("stop").disabled = !is;
  at("log").setAttribute("aria-busy", String(is));
}

// --- what is shown ----------------------------------------------------------------------------------------------------

function shown(role) {
  const names = { user: "You", assistant: "Answer", error: "Error" };
  const text = element("div", { className: role === "error" ? "text error" : "text" });
  const box = element("article", { className: "message" }, element("h3", {}, names[role] || role), text);
  at("log").append(box);
  const follow = () => { at("log").scrollTop = at("log").scrollHeight; };
  return {
    text(value) { text.textContent = value; follow(); },
    fail(value) { box.append(element("p", { className: "error", role: "alert" }, value)); follow(); },
    report(found) {
      box.append(bar(found));
      if (found.sources.length) box.append(sources(found.sources));
      const left = found.dropped.length + found.dropped_more, reduced = found.reduced.length;
      const told = [`the whole conversation has ${found.original_tokens.toLocaleString("en")} tokens`];
      if (reduced) told.push(`${reduced} parts shortened`);
      if (left) told.push(`${left} left out`);
      if (found.why) told.push(found.why);
      box.append(element("p", { className: "quiet" }, told.join("; ")));
      follow();
    },
  };
}

let waiting = 0, latest = 0;
function replanned() {
  clearTimeout(waiting);
  waiting = setTimeout(replan, 150);
}

async function replan() {
  const mine = ++latest, window = Number(at("window").value);
  const body = request(at("draft").value, window);
  if (!body.messages.length && !state.session) return at("planned").replaceChildren();
  if (!body.messages.length) body.messages = [{ role: "user", content: "…" }];
  try {
    const plan = await json("v1/context/plan", { method: "POST", body });
    if (mine === latest) at("planned").replaceChildren(bar(plan.x_ctxkit), parts(plan.decisions));
  } catch (error) {
    if (mine === latest) at("planned").replaceChildren(element("p", { className: "error" }, error.message));
  }
}

// --- sessions, models, health -----------------------------------------------------------------------------------------

async function listed() {
  let found;
  try {
    found = (await json("v1/sessions")).data;
  } catch (error) {
    if (error.code === "no_sessions") state.sessions = false;
    at("sessions").replaceChildren(element("li", { className: "quiet" }, state.sessions ? error.message : "This server keeps none."));
    return;
  }
  at("sessions").replaceChildren(...found.map((one) => {
    const title = one.metadata.title || one.id;
    const open = element("button", { type: "button", title, onclick: () => opened(one.id) }, title);
    open.setAttribute("aria-current", String(one.id === state.session));
    const remove = element("button", { type: "button", onclick: () => removed(one.id, title) }, "×");
    remove.setAttribute("aria-label", `Delete ${title}`);
    return element("li", {}, open, remove);
  }));
}

async function opened(id) {
  const found = await json(`v1/sessions/${encodeURIComponent(id)}`);
  state.session = id;
  state.messages = found.messages;
  at("log").replaceChildren();
  for (const one of found.messages) if (typeof one.content === "string" && one.content) shown(one.role).text(one.content);
  await Promise.all([listed(), replan()]);
}

async function removed(id, title) {
  if (!confirm(`Delete the session "${title}"?`)) return;
  await json(`v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
  if (id === state.session) begun();
  await listed();
}

function begun() {
  Object.assign(state, { messages: [], session: null });
  at("log").replaceChildren();
  at("planned").replaceChildren();
  at("draft").focus();
  listed();
}

async function connected() {
  const health = at("health");
  try {
    await json("health");
    const models = (await json("v1/models")).data;
    at("model").replaceChildren(...models.map((one) => element("option", { value: one.id }, one.id)));
    for (const one of models) state.windows[one.id] = one.max_model_len;
    sized();
    health.textContent = "ready";
    health.className = "good";
    await listed();
  } catch (error) {
    health.textContent = error.status === 401 ? "needs an API key" : error.message;
    health.className = "bad";
    at("access").open = error.status === 401;
  }
}

function sized() {
  const most = state.windows[at("model").value] || 8192;
  Object.assign(at("window"), { min: 64, max: most, step: Math.max(Math.round(most / 256), 1), value: most });
  told();
}

function told() {
  at("window-tokens").textContent = Number(at("window").value).toLocaleString("en");
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); send(at("draft").value); });
at("draft").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(at("draft").value); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") state.running?.abort(); });
at("draft").addEventListener("input", replanned);
at("window").addEventListener("input", () => { told(); replanned(); });
at("stop").addEventListener("click", () => state.running?.abort());
at("new").addEventListener("click", begun);
at("model").addEventListener("change", () => { sized(); replanned(); });
at("key-form").addEventListener("submit", (event) => { event.preventDefault(); useKey(at("key").value); at("key").value = ""; at("access").open = false; connected(); });
if (matchMedia("(max-width: 62rem)").matches) at("sessions-box").open = false;
connected();
