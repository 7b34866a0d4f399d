"""The decisions, pure: from what is known about one service to its next plan and its status."""

from dsr_operator.compile.plan import compile_service

__all__ = ["compile_service"]
