"""Connectors: ctxkit behind the interfaces of other frameworks.

ctxkit_connectors.langchain: LangChain's `trim_messages`, and a middleware for its agents
ctxkit_connectors.openai, ctxkit_connectors.anthropic: `trim_messages` for the two providers' plain messages
ctxkit_connectors.lancedb, ctxkit_connectors.qdrant: an index that several machines share

Nothing is imported here, so that nobody pays for a framework that is not used.
"""
