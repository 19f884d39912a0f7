"""What the connectors of vector databases share: the face of an index, over the few verbs a database must have."""

from __future__ import annotations
