"""Where run folders were described before `outlearn_agents.run_folder`."""

from outlearn_agents.run_folder import AgentSpec, RunFolder, RunnerSettings, SessionFile, TeamSpec

__all__ = ["AgentSpec", "RunFolder", "RunnerSettings", "SessionFile", "TeamSpec"]
