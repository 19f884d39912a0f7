"""StoredChatHistory: the history of a LangChain conversation in ctxkit's store."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict

from ctxkit.session import Originals
from ctxkit_connectors.kept_list import KeptList


class StoredChatHistory(BaseChatMessageHistory):
    """Messages of one conversation, kept whole: for `RunnableWithMessageHistory`.

    session_id: names the conversation in the store. store: `SqliteOriginals` keeps it in a file, which other
        conversations may share; None: in memory.

    What is cleared is overwritten in the store. One process at a time may write to a conversation.
    Raises ValueError for an id that is empty or has a "/", and StoreError where the store is damaged.
    """

    def __init__(self, session_id: str, store: Originals | None = None) -> None:
        self.session_id = session_id
        self._items = KeptList("langchain", session_id, store)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # an attribute there, a property in each of its own
        """All messages, the oldest first; what was read is a copy."""
        return messages_from_dict(self._items.latest())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages. They are there whole or, where writing fails, not at all."""
        self._items.add([message_to_dict(message) for message in messages])

    def clear(self) -> None:
        """Forget all messages."""
        self._items.clear()
