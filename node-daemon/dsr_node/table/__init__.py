"""Maglev tables and the slots that remember that they moved. Pure; numpy, and a fill in C.

keys = [backend_key(address, node_uid), ...]
want = handles_of(wanted(keys, weights, failed, seed, size), handles)
table = first_table(want, None, 0, now)
table = next_table(table, want, living, busy, now, idle)
"""

from dsr_node.table.flowhash import flow_hash, slot_of
from dsr_node.table.maglev import MAX_SIZE, MAX_WEIGHT, backend_key, fill, wanted
from dsr_node.table.slots import SlotTable, first_table, handles_of, next_table
from dsr_node.table.word import NO_HANDLE, Words, backend_id, generation, handle, pack, unpack

__all__ = [
    "MAX_SIZE",
    "MAX_WEIGHT",
    "NO_HANDLE",
    "SlotTable",
    "Words",
    "backend_id",
    "backend_key",
    "fill",
    "first_table",
    "flow_hash",
    "generation",
    "handle",
    "handles_of",
    "next_table",
    "pack",
    "slot_of",
    "unpack",
    "wanted",
]
