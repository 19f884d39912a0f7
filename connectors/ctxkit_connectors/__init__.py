"""Connectors: ctxkit behind the interfaces of other frameworks.

ctxkit_connectors.langchain: LangChain's `trim_messages`, a middleware for its agents, a retriever and a chat model
ctxkit_connectors.llama_index, ctxkit_connectors.haystack: retrieval and budgets for these two
ctxkit_connectors.openai_agents, ctxkit_connectors.pydantic_ai: model calls of their agents inside a budget
ctxkit_connectors.mcp: search, fit, count and expand as tools of the Model Context Protocol
ctxkit_connectors.openai, ctxkit_connectors.anthropic: `trim_messages` for the two providers' plain messages
ctxkit_connectors.lancedb, ctxkit_connectors.qdrant, ctxkit_connectors.pgvector: an index that several machines share
ctxkit_connectors.ray: an index that many machines make

Nothing is imported here, so that nobody pays for a framework that is not used.
"""
