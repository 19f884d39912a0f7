// The server's endpoints, as this page uses them. Every failure is an Error with the server's own words.

let key = sessionStorage.getItem("ctxkit-key") || "";

export function useKey(given) {
  key = given;
  sessionStorage.setItem("ctxkit-key", given);
}

async function asked(path, { method = "GET", body, signal } = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const error = new Error(told?.error?.message || `${answer.status} ${answer.statusText}`);
  error.code = told?.error?.code;
  error.status = answer.status;
  throw error;
}

export const json = async (path, options) => (await asked(path, options)).json();

// Chunks of a streamed chat answer, one after the other.
export async function* chat(body, signal) {
  const answer = await asked("v1/chat/completions", { method: "POST", body: { ...body, stream: true, stream_options: { include_usage: true } }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
