"""The echo server with little patience, so that tests of it need none."""

from echo_server import EchoSettings, build

from outlearn import run, serving

if __name__ == "__main__":
    serving.ARRIVAL_SECONDS = 0.5
    serving.CALLS_AT_ONCE = 2
    run(build, EchoSettings, "echo")
