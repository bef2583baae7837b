"""The agent inside a real guest: one boot for all that is asked of it."""
import pytest

from harness import guest
from harness.daemon import wait_until
from harness.domains import act, get

# A boot without KVM takes its time.
pytestmark = pytest.mark.timeout(900)


def connected(client, name):
    return get(client, name).status.agent.connected


def test_agent(daemon, client):
    with guest.shell(client, "vm", guest_agent=True) as shell:
        wait_until(lambda: connected(client, "vm"), "the agent's first answer", timeout=60)
        # It is seen to come and go.
        shell.run("kill $(pidof qemu-ga)")
        wait_until(lambda: not connected(client, "vm"), "the agent's going")
        shell.run("qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run/agent -f /run/agent/pid -d")
        wait_until(lambda: connected(client, "vm"), "the agent's return")
        # A later daemon finds it again.
        daemon.kill()
        daemon.start()
        client = daemon.client()
        wait_until(lambda: connected(client, "vm"), "the agent after a restart")
    act(client, "PowerOff", "vm")
