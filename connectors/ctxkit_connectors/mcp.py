"""An MCP server: search an index, fit a prompt into a window, count tokens, get back what was left out."""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, ParamSpec, TypeVar
from uuid import uuid4

from ctxkit.errors import BudgetInfeasible, CtxkitError, MissingExtra, PartError

if find_spec("mcp") is None:
    raise MissingExtra("mcp", "mcp")

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from ctxkit import __version__
from ctxkit.compression import standard
from ctxkit.context import KINDS, Budget, Kind, Part, Plan, fit
from ctxkit.protocols import Counter
from ctxkit.retrieval.search import Mode
from ctxkit.retrieval.searchable import Searchable
from ctxkit.session import fit_messages
from ctxkit.tokens import EstimatingCounter, messages_from_dicts

_INSTRUCTIONS = (
    "Fits long material into a token budget. `search` finds passages of the user's documents, where there is an index. "
    "`fit` chooses and shortens parts, or a conversation, so that the prompt has at most so many tokens. Where its "
    'text shows expand("ref"), the tool `expand` gives the original, with the fit_id of that call.'
)
_REMEMBERED = 64  # fits whose originals can still be expanded
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)

Given = ParamSpec("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Found:
    """One passage. location: file and lines. relevance: estimated probability that it holds the answer."""

    id: str
    location: str
    title: str
    relevance: float
    text: str


@dataclass(frozen=True)
class Fitted:
    """A prompt: the messages to send where messages were given, a text where parts were.

    prompt_tokens: as one chat prompt, template included. expandable: refs of what was left out or shortened.
    """

    fit_id: str
    messages: list[dict[str, Any]] | None
    text: str | None
    prompt_tokens: int
    exact: bool
    expandable: list[str]
    report: str


@dataclass(frozen=True)
class Counted:
    """exact: False for an upper bound."""

    tokens: int
    exact: bool
    counter: str


class Tools:
    """The four tools, and the fits that `expand` can still be asked about.

    index: what `search` searches. counter: of the model that the prompts are for; None: an upper bound for all common
    models.
    """

    def __init__(self, index: Searchable | None = None, counter: Counter | None = None) -> None:
        self.index = index
        self.counter: Counter = EstimatingCounter() if counter is None else counter
        self._plans: dict[str, Plan] = {}
        self._lock = threading.Lock()  # tools run in worker threads

    def search(
        self,
        query: Annotated[str, Field(min_length=1, description="what is sought, in words or as a question")],
        k: Annotated[int, Field(ge=1, le=100, description="passages")] = 10,
        mode: Annotated[Mode, Field(description="by meaning (dense), by words (lexical), or both")] = "hybrid",
        sources: Annotated[list[str] | None, Field(description="glob patterns of files to search")] = None,
    ) -> list[Found]:
        """Search the indexed documents. The best passages, best first."""
        if self.index is None:
            raise ToolError("this server has no index: start it with `ctxkit mcp --index FOLDER`")
        hits = self.index.search(query, k, mode=mode, sources=sources)
        return [Found(hit.chunk.id, hit.chunk.location, hit.chunk.title, hit.relevance, hit.chunk.text) for hit in hits]

    def fit(
        self,
        budget_tokens: Annotated[int, Field(ge=1, description="the most tokens of prompt and reserve together")],
        messages: Annotated[
            list[dict[str, Any]] | None, Field(description="a conversation, in OpenAI's chat form; or give parts")
        ] = None,
        parts: Annotated[
            list[dict[str, Any]] | None,
            Field(
                description="what wants into the prompt: {content, kind, id, title, source, relevance, priority, "
                f"pinned, required}}; content alone makes a passage. kind is one of {', '.join(KINDS[:4])}, question"
            ),
        ] = None,
        reserve_tokens: Annotated[int, Field(ge=0, description="of these, kept free for the answer")] = 0,
        explain: Annotated[bool, Field(description="report what became of each part, and why")] = False,
    ) -> Fitted:
        """Choose and shorten what is given so that the prompt fits into a token budget. Nothing is cut silently."""
        budget = Budget(budget_tokens, reserve_tokens)
        if (messages is None) == (parts is None):
            raise ToolError("give either `messages` or `parts`")
        if messages is not None:
            plan = fit_messages(messages, budget=budget, counter=self.counter, expandable=True)
        else:
            given = [_part(one) for one in parts or ()]
            plan = fit(given, budget=budget, counter=self.counter, compressors=standard(), expandable=True)
        fit_id, refs = self._kept(plan), [one.handle.ref for one in plan.decisions if one.handle is not None]
        sent, text = (None, plan.text) if messages is None else (plan.to_messages(), None)
        return Fitted(fit_id, sent, text, plan.prompt_tokens, plan.exact, refs, str(plan) if explain else repr(plan))

    def count_tokens(
        self,
        text: Annotated[str | None, Field(description="plain text")] = None,
        messages: Annotated[list[dict[str, Any]] | None, Field(description="or a conversation, as a prompt")] = None,
    ) -> Counted:
        """Count the tokens of a text, or of a conversation with its chat template."""
        if (text is None) == (messages is None):
            raise ToolError("give either `text` or `messages`")
        if messages is None:
            tokens = self.counter.count(text or "")
        else:
            tokens = self.counter.render(messages_from_dicts(messages)).tokens
        return Counted(tokens, self.counter.exact, self.counter.name)

    def expand(
        self,
        fit_id: Annotated[str, Field(description="as `fit` returned it")],
        ref: Annotated[str, Field(description="as given in expand(...)")],
    ) -> str:
        """Get back text that a call of `fit` omitted or shortened, byte for byte."""
        plan = self._plans.get(fit_id)
        if plan is None:
            raise ToolError(f"no fit {fit_id!r} is known any more (the latest {_REMEMBERED} are); call `fit` again")
        return plan.expand(ref)

    def _kept(self, plan: Plan) -> str:
        fit_id = uuid4().hex  # cannot be guessed: a server over HTTP may have several clients
        with self._lock:
            self._plans[fit_id] = plan
            while len(self._plans) > _REMEMBERED:
                del self._plans[next(iter(self._plans))]
        return fit_id


def mcp_server(
    *, index: Searchable | None = None, counter: Counter | None = None, name: str = "ctxkit"
) -> MCPServer[Any]:
    """A server with the tools search (where there is an index), fit, count_tokens and expand.

    index, counter: as of `Tools`. Run it with `.run()` over stdio or `.run("streamable-http", port=8000)`; in a test,
    an `mcp.Client` takes it as it is.

    A mistake of the caller is a tool error that says what to do; it does not end the server.
    """
    tools = Tools(index, counter)
    server: MCPServer[Any] = MCPServer(name, instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING")
    offered: list[Callable[..., Any]] = [tools.fit, tools.count_tokens, tools.expand]
    if index is not None:
        offered.insert(0, tools.search)
    for tool in offered:
        server.add_tool(_told(tool), annotations=_READS)
    return server


def _part(given: Mapping[str, Any]) -> Part:
    fields: dict[str, Any] = {"kind": "passage", **given}
    kind: Kind = fields.pop("kind")
    if unknown := fields.keys() - {"content", "id", "title", "source", "relevance", "priority", "pinned", "required"}:
        raise PartError(f"a part has no {', '.join(map(repr, sorted(unknown)))}")
    if "content" not in fields:
        raise PartError(f"a part needs `content`, got {dict(given)!r}")
    if kind in ("system", "instruction", "question"):
        fields.setdefault("pinned", True)
    return Part(kind, **fields)


def _told(tool: Callable[Given, Made]) -> Callable[Given, Made]:
    """The tool, with ctxkit's errors as answers that the client's model reads; others stay on the server."""

    @functools.wraps(tool)
    def told(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        try:
            return tool(*args, **kwargs)
        except BudgetInfeasible as error:
            raise ToolError(str(error).replace("window_tokens", "budget_tokens")) from error
        except (CtxkitError, ValueError, TypeError) as error:
            raise ToolError(str(error)) from error

    return told
