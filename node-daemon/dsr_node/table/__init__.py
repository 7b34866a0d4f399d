"""Maglev tables and the slots that remember that they moved. Pure; numpy and a C fill inside."""
