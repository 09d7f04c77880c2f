"""The embedded world: a help desk with an exact rubric (words, agents, rubric, preferences)."""

from orchestrator.tasks.helpdesk.task import Helpdesk as Helpdesk
