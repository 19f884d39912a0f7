// What a prompt is made of: a bar of tokens by kind, and a table of its parts. Text goes in as text, never as HTML.

export function element(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const number = (value) => value.toLocaleString("en");

// by_kind: tokens by kind of part, with "template" and "tools"; reserve: kept for the answer.
export function bar({ window_tokens, by_kind, reserve_tokens }) {
  const kinds = Object.entries(by_kind).filter(([, tokens]) => tokens > 0);
  const used = kinds.reduce((sum, [, tokens]) => sum + tokens, 0);
  const free = Math.max(window_tokens - used - reserve_tokens, 0);
  const told = `${number(used)} of ${number(window_tokens)} tokens in the prompt, ${number(reserve_tokens)} kept for the answer, ${number(free)} free`;
  const pieces = [...kinds.map(([kind, tokens]) => [`k-${kind}`, tokens, kind]), ["reserve", reserve_tokens, "kept for the answer"]];
  const drawn = element("div", { className: "bar", role: "img", "aria-label": told });
  const legend = element("div", { className: "legend" });
  for (const [name, tokens, label] of pieces) {
    const piece = element("span", { className: name, title: `${label}: ${number(tokens)} tokens` });
    piece.style.width = `${(100 * tokens) / window_tokens}%`;
    drawn.append(piece);
    legend.append(element("span", {}, element("i", { className: name }), `${label.replace("_", " ")} ${number(tokens)}`));
  }
  return element("div", {}, drawn, legend, element("div", { className: "quiet" }, told));
}

export function parts(decisions) {
  const rows = decisions.map((one) => element("tr", { className: one.level === "dropped" ? "dropped" : "" },
    element("td", { title: one.id }, one.title || `${one.kind.replace("_", " ")} ${one.id}`), element("td", {}, one.level),
    element("td", { className: "number" }, number(one.tokens)), element("td", { className: "why" }, one.reason)));
  const heads = ["part", "level", "tokens", "why"].map((name) => element("th", { scope: "col" }, name));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
  return element("div", { className: "scroll" }, table);
}

export function sources(found) {
  const items = found.map((one) => element("li", {}, `[${one.number ?? "-"}] ${one.title || one.source || one.id}`, element("span", { className: "quiet" }, ` ${one.source}, ${number(one.tokens)} tokens`)));
  return element("details", { open: found.length <= 5 }, element("summary", {}, `${found.length} sources in the prompt`), element("ul", {}, ...items));
}
